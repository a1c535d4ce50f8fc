"""Heads and layers of other people's networks: found, named by the user, or refused in one line."""

import pytest
import torch
from networks import BatchNormAct, Foreign, FrozenBatchNorm
from torch import nn

from gammabeta import InputError, select
from gammabeta.roles import find_output


class Heads(nn.Module):
    """A body and linear layers of these widths (in, out), in this order."""

    def __init__(self, **widths):
        super().__init__()
        self.norm = nn.LayerNorm(4)
        for name, (features, out) in widths.items():
            self.add_module(name, nn.Linear(features, out))


def refused(module, text, **options):
    with pytest.raises(InputError) as caught:
        select(module, text, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_last_of_a_chain_is_the_head_and_one_of_two_beside_each_other_is_not():
    assert find_output(Heads(fc1=(4, 8), fc2=(8, 3))) == "fc2"
    assert find_output(Heads(fc1=(4, 4), fc2=(4, 3))) == "fc2"
    two = Heads(age=(4, 3), kind=(4, 5))
    assert find_output(two) is None
    message = refused(two, "bn+output")
    assert "name it, as in select(module, 'output', output='head')" in message
    assert message.endswith("its linear layers: age, kind")
    assert select(two, "bn+output", output="kind").count == 8 + 25
    assert select(two, "bn+output", output="age").count == 8 + 15
    assert "no module is named 'sort'" in refused(two, "output", output="sort")


def test_what_a_network_says_of_its_head_is_believed():
    two = Heads(head=(4, 3), head_dist=(4, 3))  # timm's distilled ones have both
    two.get_classifier = lambda: two.head
    assert find_output(two) == "head"
    two.get_classifier = lambda: (two.head, two.head_dist)
    assert find_output(two) is None
    language = Heads(lm_head=(4, 9), extra=(9, 2))
    language.get_output_embeddings = lambda: language.lm_head
    assert find_output(language) == "lm_head"
    headless = Heads(pooler=(4, 4))
    assert find_output(headless) == "pooler"
    type(headless).base_model = property(lambda self: self)
    try:
        assert find_output(headless) is None
        assert "cannot tell which" in refused(headless, "output")
    finally:
        del Heads.base_model


def test_a_head_whose_weight_is_shared_is_refused_by_name():
    tied = nn.Sequential(nn.Embedding(9, 4), nn.LayerNorm(4), nn.Linear(4, 9))
    tied[2].weight = tied[0].weight
    message = refused(tied, "bn+output")
    assert "the classifier '2' shares its weight with '0.weight'" in message
    assert select(tied, r"bn+name:0\.weight").count == 8 + 36


def test_a_frozen_batchnorm_is_left_alone_and_named():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 1), FrozenBatchNorm(4), BatchNormAct(4), nn.Flatten(), nn.Linear(4, 2)
    )
    subset = select(network, "bn+output")
    assert subset.left_alone == {"1": "FrozenBatchNorm, whose gamma and beta are buffers"}
    assert "left alone: 1 (FrozenBatchNorm, whose" in str(subset)
    assert {row.name for row in subset.trained.values()} == {
        "2.weight", "2.bias", "4.weight", "4.bias",
    }  # fmt: skip
    drifting = [row.name for row in subset.table if row.verdict == "drifts"]
    assert drifting == ["2.running_mean", "2.running_var", "2.num_batches_tracked"]
    message = refused(network[:2], "bn")
    assert "1 normalisation layers such as 1 keep gamma and beta as buffers" in message


def test_layers_of_unknown_kind_are_left_alone_and_named():
    subset = select(Foreign(), "bn+output")
    assert subset.left_alone == {"not_a_norm": "ScaleShift, of unknown kind"}
    assert str(subset).splitlines()[0] == "bn+output: 67 of 171 parameters train"
    assert "left alone: not_a_norm (ScaleShift, of unknown kind)" in str(subset)
    assert select(Foreign(), "all").left_alone == {}


@pytest.mark.parametrize("policy", ["track", "frozen", "batch"])
def test_the_policy_survives_train_in_a_norm_with_its_activation_inside(policy):
    network = nn.Sequential(nn.Conv2d(3, 4, 1), BatchNormAct(4), nn.Flatten(), nn.Linear(4, 2))
    leaves = select(network, "bn+output", statistics=policy).apply(network)
    before = network[1].running_mean.clone()
    network.eval().train()
    network(torch.randn(8, 3, 1, 1) + 1.0).sum().backward()
    assert torch.equal(before, network[1].running_mean) == (policy != "track")
    assert all(leaf.grad is not None for leaf in leaves.values())
    assert network[1].training
