"""The subset of any network: roles from types, exact counts, freezing that is proved."""

import itertools

import pytest
import torch
from networks import Foreign, ForeignBatchNorm, ForeignRMSNorm, Mixed, Odd, ScaleShift
from torch import nn

from gammabeta import InputError, RunError, create_model, select
from gammabeta.fingerprint import check_fingerprint, fingerprint
from gammabeta.roles import find_output, is_norm, roles
from gammabeta.sparse import attached

SUBSETS = [
    "none", "all", "bn", "gamma", "beta", "output", "shortcut", "random:2", "bias", "bn+output",
    "all-bn", "random:1+output", "bn+random:3", "shortcut+output", "name:blocks.0.*-beta",
]  # fmt: skip


def _roles(module):
    return {role.name: role.role for role in roles(module)}


def test_roles_of_every_kind_of_norm():
    found = _roles(Mixed())
    for name in ("batch", "sync", "group", "instance", "batch3", "batch1", "layer"):
        assert (found[f"{name}.weight"], found[f"{name}.bias"]) == ("gamma", "beta")
    assert found["rms.weight"] == "gamma"
    assert "rms.bias" not in found
    assert (found["conv.weight"], found["conv.bias"]) == ("conv", "bias")
    assert (found["head.weight"], found["head.bias"]) == ("output", "output")
    gammas_and_betas = 8 * 8 + 2 * 4 * 3 + 4
    assert select(Mixed(), "bn").count == gammas_and_betas


def test_roles_of_norms_with_something_missing():
    found = _roles(Odd())
    assert found["no_statistics.weight"] == "gamma"
    assert found["no_bias.weight"] == "gamma"
    assert "no_bias.bias" not in found
    assert not any(name.startswith(("no_affine", "bare")) for name in found)
    assert select(Odd(), "bn").count == 6 + 6 + 6
    assert select(Odd(), "beta").count == 6
    names = {row.name for row in select(Odd(), "bn").table if row.role == "statistics"}
    assert "no_affine.running_mean" in names
    assert not any(name.startswith(("no_statistics", "bare")) for name in names)


def test_look_alikes_are_found_by_what_they_are_not_by_their_names():
    found = _roles(Foreign())
    assert found["one.weight"] == "gamma"
    assert found["bn_conv.weight"] == "conv"
    assert found["downsample.0.weight"] == "shortcut"
    assert (found["downsample.1.weight"], found["downsample.1.bias"]) == ("gamma", "beta")
    assert found["fc_norm.weight"] == "gamma"
    assert (found["not_a_norm.weight"], found["not_a_norm.bias"]) == ("other", "bias")
    assert found["last.weight"] == "output"
    assert is_norm(ForeignBatchNorm(2))
    assert is_norm(ForeignRMSNorm(2))
    assert not is_norm(ScaleShift(2))
    assert not is_norm(nn.Linear(2, 2))


def test_the_classifier_is_found_by_structure_or_named():
    headless = nn.Sequential(nn.Linear(3, 3), nn.Conv1d(3, 3, 1))
    assert find_output(headless) is None
    with pytest.raises(InputError, match=r"cannot tell which module is the classifier.*layers: 0"):
        select(headless, "output")
    assert select(headless, "output", output="0").count == 12
    with pytest.raises(InputError, match="no module is named 'head'"):
        select(headless, "output", output="head")

    class Timm(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(2, 4)
            self.aux = nn.Linear(4, 4)

        def get_classifier(self):
            return self.head

    assert find_output(Timm()) == "head"
    heads = nn.Sequential(nn.Linear(3, 3), nn.ModuleList([nn.Linear(3, 2), nn.Linear(3, 2)]))
    assert find_output(heads) is None
    assert select(nn.Linear(2, 3), "output").count == 9


def test_a_shared_parameter_counts_once():
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    assert select(tied, "all").count == 16 + 4 + 4


EXPECTED = {
    "none": 0, "all": 175_258, "bn": 1_120, "gamma": 560, "beta": 560, "output": 650,
    "shortcut": 2_560, "random:2": 1_120, "random:1": 560, "bias": 10, "bn+output": 1_770,
    "bn+shortcut+output": 4_330, "all-bn": 174_138, "all-bn-output": 173_488,
    "random:2+output": 1_770, "bn+random:2": 2_240, "random:2-shortcut": 928,
    "random:2+shortcut": 3_488, "name:fc.*": 650, r"name:.*\.bias": 570,
    "all-bias": 175_248, "bn-beta": 560,
}  # fmt: skip


@pytest.mark.parametrize(("text", "count"), EXPECTED.items())
def test_counts(text, count):
    network = create_model("cifar_resnet_14")
    subset = select(network, text)
    assert subset.count == count
    assert subset.total == 175_258
    assert sum(leaf.numel() for leaf in subset.apply(network).values()) == count


def test_every_tensor_gets_exactly_one_verdict():
    network = create_model("cifar_resnet_14")
    subset = select(network, "bn+random:2")
    names = [row.name for row in subset.table]
    assert sorted(names) == sorted(network.state_dict())
    verdicts = {row.role: row.verdict for row in subset.table}
    assert verdicts == {
        "gamma": "trained", "beta": "trained", "conv": "sparse", "shortcut": "sparse",
        "output": "frozen", "statistics": "drifts",
    }  # fmt: skip
    frozen = select(network, "bn", statistics="frozen")
    assert {row.verdict for row in frozen.table if row.role == "statistics"} == {"frozen"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shortcut", "'shortcut' selects nothing here; the network has:"),
        ("name:head.*", "'name:head.*' selects nothing here"),
        ("bn-name:x", "'name:x' selects nothing here"),
        ("output-name:fc.*", "'output-name:fc.*' selects nothing here"),
        ("bm", "did you mean bn"),
    ],
)
def test_a_part_that_selects_nothing_says_what_the_network_has(text, message):
    with pytest.raises(InputError) as caught:
        select(create_model("cifar_vgg_11"), text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_norm_and_no_shape_are_errors():
    with pytest.raises(InputError, match="'bn' selects nothing"):
        select(nn.Sequential(nn.Linear(2, 2)), "bn")
    with pytest.raises(InputError, match="no shape yet"):
        select(nn.Sequential(nn.LazyLinear(2)), "all")


def test_select_changes_nothing():
    network = create_model("cifar_resnet_8")
    before = fingerprint(network)
    select(network, "random:2+bn")
    assert fingerprint(network) == before
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_apply_sets_requires_grad_and_keeps_names():
    network = create_model("cifar_resnet_8")
    keys = list(network.state_dict())
    leaves = select(network, "gamma").apply(network)
    training = {name for name, p in network.named_parameters() if p.requires_grad}
    assert training == leaves.keys()
    assert all(_roles(network)[name] == "gamma" for name in training)
    assert list(network.state_dict()) == keys
    with pytest.raises(InputError, match="selected on another network"):
        select(network, "bn").apply(create_model("cifar_resnet_14"))


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("text", SUBSETS)
def test_frozen_entries_stay_bit_identical_and_trained_ones_move(text, optimizer):
    network = create_model("cifar_resnet_8_4", seed=1)
    start = {name: p.detach().clone() for name, p in network.named_parameters()}
    subset = select(network, text, seed=1)
    leaves = subset.apply(network)
    first = {name: leaf.detach().clone() for name, leaf in leaves.items()}
    index = {name: entries.index for name, entries in attached(network).items()}
    make = {
        "sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01),
        "adam": lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.01),
        "adamw": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1),
    }[optimizer]
    optimise = make(list(leaves.values())) if leaves else None
    draw = torch.Generator().manual_seed(0)
    for _ in range(20):
        images = torch.randn(8, 3, 8, 8, generator=draw)
        labels = torch.randint(0, 10, (8,), generator=draw)
        loss = nn.functional.cross_entropy(network(images), labels)
        if optimise is not None:
            optimise.zero_grad()
            loss.backward()
            optimise.step()
    after = network.state_dict()
    for name, value in start.items():
        moved = after[name] != value
        if name in index:
            chosen = torch.zeros(value.numel(), dtype=torch.bool)
            chosen[index[name].flatten()] = True
            assert not moved.flatten()[~chosen].any(), name
        elif name not in leaves:
            assert not moved.any(), name
            assert dict(network.named_parameters())[name].grad is None
    for name, leaf in leaves.items():
        share = (leaf.detach() != first[name]).double().mean()
        assert share > 0.5, name  # a filter behind a switched-off ReLU may have no gradient


def test_another_subset_replaces_the_first():
    network = create_model("cifar_resnet_8")
    select(network, "random:2").apply(network)
    leaves = select(network, "bn").apply(network)
    assert not attached(network)
    assert {n for n, p in network.named_parameters() if p.requires_grad} == leaves.keys()


@pytest.mark.parametrize("text", ["bn", "random:2+output", "none", "all"])
def test_extract_and_restore_round_trip(text):
    network = create_model("cifar_resnet_8_4")
    subset = select(network, text)
    leaves = subset.apply(network)
    with torch.no_grad():
        for leaf in leaves.values():
            leaf.uniform_(-1, 1)
    network(torch.randn(4, 3, 8, 8))  # moves the statistics
    state = subset.state(network)
    other = create_model("cifar_resnet_8_4")
    subset.apply(other)
    subset.load_state(other, state)
    for key, value in network.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key


def test_restoring_what_does_not_fit_is_refused_by_name():
    network = create_model("cifar_resnet_8")
    subset = select(network, "bn")
    with pytest.raises(InputError, match=r"another subset: 'blocks.0.bn1.bias'"):
        subset.restore(network, {})
    values = subset.extract(network)
    values["bn.bias"] = torch.zeros(3)
    with pytest.raises(InputError, match=r"'bn.bias' has shape \(3,\), not \(16,\)"):
        subset.restore(network, values)
    with pytest.raises(InputError, match="call apply first"):
        select(network, "random:2").extract(network)


def test_the_fingerprint_names_the_first_tensor_that_differs():
    network = create_model("cifar_resnet_8")
    marks = fingerprint(network)
    check_fingerprint(network, marks)
    with torch.no_grad():
        network.blocks[1].conv2.weight.view(-1)[17] = -0.0
    with pytest.raises(RunError, match=r"'blocks.1.conv2.weight' was rebuilt"):
        check_fingerprint(network, marks)
    channels_last = create_model("cifar_resnet_8").to(memory_format=torch.channels_last)
    check_fingerprint(channels_last, marks)


def test_all_unions_of_two_parts_have_the_counts_of_their_sets():
    network = create_model("cifar_resnet_8")
    names = {
        part: set(select(network, part).trained)
        for part in ("bn", "gamma", "beta", "output", "shortcut", "bias", "all")
    }
    for one, two in itertools.permutations(names, 2):
        union = select(network, f"{one}+{two}")
        assert set(union.trained) == names[one] | names[two]
        left = names[one] - names[two]
        if left:
            assert set(select(network, f"{one}-{two}").trained) == left
