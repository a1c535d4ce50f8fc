"""Heads and layers of other people's networks: found, named by the user, or refused in one line."""

import itertools

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
    language = Heads(projector=(4, 4), lm_head=(4, 9))
    language.get_output_embeddings = lambda: language.lm_head
    assert find_output(language) == "lm_head"
    two = Heads(lm_head=(4, 9), next_sentence=(4, 2))
    two.token = nn.Parameter(torch.zeros(1, 1, 4))
    two.get_output_embeddings = lambda: two.lm_head
    assert find_output(two) is None
    assert select(two, "output", output="lm_head").count == 45
    headless = Heads(pooler=(4, 4))
    assert find_output(headless) == "pooler"
    type(headless).base_model = property(lambda self: self)
    try:
        assert find_output(headless) is None
        assert "cannot tell which" in refused(headless, "output")
    finally:
        del Heads.base_model


class Nested(nn.Module):
    """Layers by name, in this order."""

    def __init__(self, **layers):
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)


def mlp(*widths):
    pairs = itertools.pairwise(widths)
    return nn.Sequential(*(layer for i, o in pairs for layer in (nn.Linear(i, o), nn.ReLU())))


def blocks(width):
    return nn.Sequential(nn.Linear(width, 3 * width), nn.Linear(width, width), nn.LayerNorm(width))


NO_HEADS = {
    "squeeze and excitation, head first": Nested(
        head=nn.Linear(8, 5), se=Heads(a=(8, 4), b=(4, 8))
    ),
    "a block as it leaves it": Nested(stem=nn.Conv2d(3, 8, 1), mlp=mlp(8, 32, 8)),
    "attention": nn.Sequential(nn.LayerNorm(8), nn.MultiheadAttention(8, 2)),
    "attention alone": nn.MultiheadAttention(8, 2),
    "own attention": Nested(head=nn.Linear(8, 5), own=Heads(qkv=(8, 24), out=(8, 8))),
    "a projection for a loss": Nested(head=nn.Linear(8, 5), projector=mlp(8, 16, 7)),
}
HEADS = {
    "an autoencoder's or a small network's own": (mlp(8, 32, 8), "2"),
    "behind an embedding": (
        Nested(embed=nn.Linear(3, 8), blocks=blocks(8), head=mlp(8, 16, 5)), "head.2"
    ),
    "behind attention that is fused": (Nested(blocks=blocks(8), head=mlp(8, 5)), "head.0"),
    "behind squeeze and excitation": (
        Nested(se=Heads(a=(8, 4), b=(4, 8)), head=nn.Linear(8, 5)), "head"
    ),
}  # fmt: skip


@pytest.mark.parametrize("module", NO_HEADS.values(), ids=NO_HEADS)
def test_the_last_linear_layer_is_no_head_where_it_is_part_of_something_else(module):
    assert find_output(module) is None
    assert "cannot tell which module is the classifier" in refused(module, "output")


@pytest.mark.parametrize(("module", "head"), HEADS.values(), ids=HEADS)
def test_a_clear_head_is_found_behind_all_that(module, head):
    assert find_output(module) == head


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


class Scaled(nn.Module):
    """A block with a scale of its own around layers that train."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))
        self.norm, self.linear = nn.LayerNorm(4), nn.Linear(4, 4)


def test_a_scale_is_named_also_where_layers_inside_its_block_train():
    network = nn.Sequential(Scaled(), Scaled(), nn.Linear(4, 3))
    alone = dict.fromkeys("01", "Scaled, of unknown kind")
    assert select(network, "bn+output").left_alone == alone
    assert select(network, "output").left_alone == alone
    assert select(network, r"bn+name:0\.scale").left_alone == {"1": alone["1"]}
    network[1].scale = network[0].scale  # one parameter, which trains under its first name
    assert select(network, r"bn+name:0\.scale").left_alone == {}
    assert select(network, "bn").left_alone == alone


def test_what_is_printed_names_the_head():
    subset = select(Foreign(), "bn+output")
    assert "  output     trained 27 of 27 (last)" in str(subset).splitlines()
    deep = nn.Sequential(nn.LayerNorm(4), nn.Sequential(nn.ReLU(), nn.Linear(4, 3)))
    assert "  output     frozen  0 of 15 (1.1)" in str(select(deep, "bn")).splitlines()
    whole = str(select(deep, "output", output="1"))
    assert "trained 15 of 15 (1.1)" in whole
    assert "trained 9 of 9 (the network itself)" in str(select(nn.Linear(2, 3), "output"))


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
