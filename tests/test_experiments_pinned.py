"""Every experiment of the paper point by point, and its recipe field by field, against a table that
is typed by hand, not taken from the package: networks, subsets, what varies, seeds, probes.

What has no mark is from the paper's text and figures or its authors' code. `# ours`: nobody has
told which networks or values an experiment had, so we chose. `# issue 4`: named by the issue of
this project that asked for the experiments; that the paper has it so is recalled, or found in no
source. Neither is a fact, but a choice that results were made with: a change of it is to be a
decision. The runs of the non-author report are pinned in test_paper_report.py.
"""

import dataclasses

import pytest

from gammabeta import RunSpec
from gammabeta.language import parse
from gammabeta.paper import SCALES, experiments
from gammabeta.schedule import learning_rate_factor

CIFAR = {
    "data": "cifar10", "epochs": 160, "batch_size": 128, "seed": 0,
    "optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": False, "betas": (),
    "weight_decay": 1e-4, "lr_by_role": (), "weight_decay_by_role": (),
    "schedule": "step", "drops": (80 / 160, 120 / 160), "drop_factor": 0.1, "schedule_steps": None,
    "warmup_epochs": 0, "label_smoothing": 0,
    "weight_init": "kaiming_normal", "norm_init": "uniform", "bias_init": "uniform",
    "statistics": "track", "norm_shares": 1, "precision": "fp32",
    "flip": True, "crop_padding": 4, "brightness": 0, "normalisation": "imagenet", "image_size": 0,
    "subsample": None, "test_subsample": None, "random_labels": 0, "weights": "", "validation": 0,
}  # fmt: skip
IMAGENET = {
    **CIFAR, "data": "imagenet", "epochs": 90, "batch_size": 1024, "lr": 0.4,
    "drops": (30 / 90, 60 / 90, 80 / 90), "warmup_epochs": 5, "image_size": 224,
    "crop_padding": 0,  # crops are random, of a random size
}  # fmt: skip

DEEP = [f"cifar_resnet_{depth}" for depth in (14, 32, 56, 110, 218, 434, 866)]
WIDE = ["cifar_resnet_14", *(f"cifar_resnet_14_{16 * scale}" for scale in (2, 4, 8, 16, 32))]
ABLATED = [f"cifar_resnet_{depth}" for depth in (14, 32, 56, 110)]  # ours
NINE = ["bn", "all", "none", "random:2", "bn+shortcut+output", "shortcut+output",
        "output", "bn+output", "bn+shortcut"]  # fmt: skip  # issue 4: these three
# issue 4: that there is an alternate start is published; that it is this one is recalled
ALTERNATE = ("bn", {"norm_init": "ones_ones"})
# issue 4; 576: the whole of the largest filter, 3 x 3 x 64
AMOUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 576)
# issue 4: all are in the authors' code; that the paper compares them is recalled
NORM_INITS = ("uniform", "ones", "ones_ones", "symmetric")
WEIGHT_INITS = ("kaiming_normal", "kaiming_uniform", "orthogonal", "binary")
RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # ours, around the published 0.1
COMPARED = ["bn", "all", "random:2", "output", "bn+output"]  # ours


@dataclasses.dataclass
class Pinned:
    """points: subsets, or (subset, fields that are not the recipe's), each on every network. axis:
    what the figure has on its horizontal axis. seeds: at the paper's scale."""

    networks: list
    points: list
    axis: str = "model"
    recipe: dict = dataclasses.field(default_factory=lambda: CIFAR)
    seeds: int = 5
    probes: tuple = ()


TABLE = {
    "networks": Pinned([], [], axis=""),
    "depth": Pinned(DEEP, [*NINE, ALTERNATE]),
    "width": Pinned(WIDE, [*NINE, ALTERNATE]),
    "count": Pinned([*DEEP, *WIDE[1:]], ["bn"], axis="parameters"),
    "random": Pinned(DEEP[:3], ["bn", *(f"random:{k}" for k in AMOUNTS)],  # networks: ours
                     axis="parameters"),
    "frozen-bn": Pinned(ABLATED, ["all", "all-bn"]),
    "frozen-bn-imagenet": Pinned([f"imagenet_resnet_{depth}" for depth in (18, 34, 50)],  # ours
                                 ["all", "all-bn"], recipe=IMAGENET, seeds=3),  # seeds: issue 4
    "norm-init": Pinned(ABLATED, [("bn", {"norm_init": each}) for each in NORM_INITS],
                        axis="norm_init"),
    "weight-init": Pinned(ABLATED, [("bn", {"weight_init": each}) for each in WEIGHT_INITS],
                          axis="weight_init"),
    "gamma-beta": Pinned(ABLATED, ["bn", "gamma", "beta"]),  # issue 4
    "vgg": Pinned([f"cifar_vgg_{depth}" for depth in (11, 13, 16, 19)],  # issue 4
                  ["bn", "all", "none", "random:2", "bn+output"]),  # subsets: ours
    "curves": Pinned(["cifar_resnet_110"], ["bn", "bn+shortcut+output", "all",  # as published
                                            "random:2"], axis="epochs"),  # ours
    "lr": Pinned(["cifar_resnet_14"],
                 [(subset, {"lr": rate}) for subset in COMPARED for rate in RATES], axis="lr"),
    "gammas": Pinned(ABLATED, ["bn", "all"], axis="threshold", probes=("gammas",)),
    "clamp": Pinned(ABLATED, ["bn", "all"], axis="threshold", probes=("clamp",)),  # issue 4
    # issue 4
    "activity": Pinned(ABLATED, ["bn", "all"], axis="threshold", probes=("activity",)),
    # issue 4, all of it
    "cifar100": Pinned(DEEP, [*NINE, ALTERNATE], recipe={**CIFAR, "data": "cifar100"}),
    "imagenet": Pinned([f"imagenet_resnet_{depth}" for depth in (18, 34, 50, 101, 200)],
                       ["bn", "all", "random:2", "bn+output"],  # all, bn+output: issue 4
                       recipe=IMAGENET, seeds=3),  # seeds: issue 4
}  # fmt: skip


def test_every_experiment_is_pinned_and_the_recipe_has_every_field():
    assert set(experiments()) == {*TABLE, "report"}
    fields = {each.name for each in dataclasses.fields(RunSpec)}
    assert CIFAR.keys() == IMAGENET.keys() == fields - {"model", "trainable"}


@pytest.mark.parametrize("name", TABLE)
def test_points_and_recipes_are_those_of_the_table(name):
    pinned, experiment = TABLE[name], experiments()[name]
    wanted = []
    for network in pinned.networks:
        for each in pinned.points:
            subset, other = (each, {}) if isinstance(each, str) else each
            own = {"model": network, "trainable": str(parse(subset))}
            wanted.append(pinned.recipe | own | other)
    found = [{key: getattr(point, key) for key in dataclasses.asdict(point)}
             for point in experiment.points]  # fmt: skip
    assert _sorted(found) == _sorted(wanted)
    told = experiment.axis, experiment.probes, experiment.seeds(SCALES["paper"])
    assert told == (pinned.axis, pinned.probes, pinned.seeds)
    if found:
        assert {each.seed for each in experiment.at(SCALES["paper"])} == set(range(pinned.seeds))


def _sorted(points):
    """In an order of their own: that of an experiment is how its figure is drawn."""
    return sorted(points, key=lambda each: repr(sorted(each.items())))


def test_the_rate_is_as_published_epoch_by_epoch():
    """CIFAR: 0.1, a tenth after 80 and 120 of 160. ImageNet: 0.4, rising from 0 over 5 epochs, a
    tenth after 30, 60 and 80 of 90."""
    cifar = next(iter(experiments()["depth"].points))
    imagenet = next(iter(experiments()["imagenet"].points))
    cases = ((cifar, {0: 0.1, 79.5: 0.1, 80: 0.01, 119.5: 0.01, 120: 0.001, 159.5: 0.001}),
             (imagenet, {1: 0.08, 2.5: 0.2, 5: 0.4, 29.5: 0.4, 30: 0.04, 59.5: 0.04, 60: 0.004,
                         79.5: 0.004, 80: 0.0004, 89.5: 0.0004}))  # fmt: skip
    for spec, rates in cases:
        for epoch, rate in rates.items():
            step = round(1000 * epoch)
            told = spec.lr * learning_rate_factor(spec, step, 1000)
            assert told == pytest.approx(rate, rel=2e-3), (spec.model, epoch)
