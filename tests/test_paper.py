"""The published numbers: under canonical names, shown beside the paper's own recipe only."""

import pytest

from gammabeta import RunSpec
from gammabeta.language import parse
from gammabeta.names import PAPER_NETWORKS
from gammabeta.paper import PUBLISHED, published_accuracy


def test_every_entry_can_be_asked_for():
    for (model, subset), accuracy in PUBLISHED.items():
        assert model in PAPER_NETWORKS
        assert str(parse(subset)) == subset
        assert 0.09 < accuracy < 0.96


@pytest.mark.parametrize(
    ("model", "subset", "percent"),
    [
        ("cifar_resnet_14", "bn", 48.1),
        ("cifar_resnet_110", "bn", 69.7),
        ("cifar_resnet_866", "bn", 82.0),
        ("cifar_resnet_14_512", "bn", 73.4),
        ("cifar_resnet_110", "shortcut + output", 19.4),
        ("cifar_resnet_866", "bn+shortcut+output", 82.1),
        ("cifar_resnet_14_128", "all", 94.9),
    ],
)
def test_published_accuracy(model, subset, percent):
    spec = RunSpec(model=model, trainable=subset)
    assert published_accuracy(spec) == pytest.approx(percent / 100)
    assert published_accuracy(spec.replace(seed=4, precision="bf16")) == published_accuracy(spec)


@pytest.mark.parametrize(
    "change", [{"epochs": 16}, {"data": "digits"}, {"lr": 0.2}, {"norm_init": "ones"},
               {"trainable": "gamma"}, {"subsample": 1000}]
)  # fmt: skip
def test_no_number_beside_another_recipe(change):
    assert published_accuracy(RunSpec().replace(**change)) is None
