"""random:K: which entries, their gradient, copies, what is refused."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from gammabeta import InputError, create_model, select
from gammabeta.sparse import attached, choose_entries


def test_random_entries_are_distinct_reproducible_and_nested():
    network = create_model("cifar_resnet_8")
    layer = network.blocks[0].conv1
    four = choose_entries(layer, "a", 4, seed=0)
    assert four.shape == (16, 4)
    assert len(four.flatten().unique()) == 64
    assert torch.equal(four, choose_entries(layer, "a", 4, seed=0))
    assert torch.equal(four[:, :2], choose_entries(layer, "a", 2, seed=0))
    assert not torch.equal(four, choose_entries(layer, "a", 4, seed=1))
    assert not torch.equal(four, choose_entries(layer, "b", 4, seed=0))
    channel = torch.div(four, 144, rounding_mode="floor")
    assert (channel == torch.arange(16)[:, None]).all()


def test_random_entries_cover_a_filter_evenly():
    counts = np.zeros(144)
    layer = create_model("cifar_resnet_8").blocks[0].conv1
    for seed in range(40):
        counts += np.bincount(choose_entries(layer, "a", 9, seed).flatten() % 144, minlength=144)
    assert counts.sum() == 40 * 16 * 9
    assert (abs(counts / counts.mean() - 1) < 0.55).all()  # 40 expected, 4 deviations of 6.1


@pytest.mark.parametrize("groups", [1, 2])
def test_random_entries_of_a_transposed_convolution_belong_to_output_channels(groups):
    layer = nn.ConvTranspose2d(4, 6, 3, groups=groups)
    index = choose_entries(layer, "up", 2, seed=0)
    assert index.shape == (6, 2)
    for channel, entries in enumerate(index):
        weight = torch.zeros_like(layer.weight).flatten()
        weight[entries] = 1.0
        layer.weight.data = weight.view_as(layer.weight)
        out = layer(torch.ones(1, 4, 5, 5)) - layer.bias[:, None, None]
        assert out[0].abs().sum((1, 2)).nonzero().flatten().tolist() == [channel]


def test_k_is_capped_at_the_size_of_a_filter_with_one_warning():
    network = create_model("cifar_resnet_14")
    with pytest.warns(UserWarning, match="random:30 is more than a filter has") as caught:
        subset = select(network, "random:30")
    assert len(caught) == 1
    expected = 16 * 27 + 32 * 16 + 64 * 30 + (560 - 16 - 32 - 64) * 30
    assert subset.count == expected
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        every = select(network, "random:100000")
    assert every.count == 175_258 - 1_120 - 650
    assert {row.verdict for row in every.table if row.role == "conv"} == {"trained"}


def test_the_gradient_of_a_sparse_leaf_is_that_of_its_entries():
    dense, thin = (create_model("cifar_resnet_8_4", seed=3).double() for _ in range(2))
    leaves = select(thin, "random:3").apply(thin)
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    cotangent = torch.randn(4, 10, dtype=torch.float64)
    dense(images).backward(cotangent)
    thin(images).backward(cotangent)
    gradients = {name: p.grad for name, p in dense.named_parameters()}
    for name, entries in attached(thin).items():
        expected = gradients[name].flatten()[entries.index]
        torch.testing.assert_close(leaves[name].grad, expected, rtol=1e-9, atol=1e-12)
        assert dict(thin.named_parameters())[name].grad is None


def test_state_dict_holds_the_sparse_values_and_loading_reads_them():
    network = create_model("cifar_resnet_8")
    subset = select(network, "random:2")
    leaves = subset.apply(network)
    name = "blocks.0.conv1.weight"
    with torch.no_grad():
        leaves[name].add_(1.0)
    index = attached(network)[name].index
    saved = {key: value.clone() for key, value in network.state_dict().items()}
    assert torch.equal(saved[name].flatten()[index], leaves[name])
    saved[name].flatten()[index] += 1.0
    network.load_state_dict(saved)
    assert torch.equal(leaves[name], saved[name].flatten()[index])


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_detaching_leaves_an_ordinary_network_that_computes_the_same(memory_format):
    network = create_model("cifar_resnet_8").to(memory_format=memory_format)
    leaves = select(network, "random:2").apply(network)
    with torch.no_grad():
        for leaf in leaves.values():
            leaf.mul_(-2.0)
    images = torch.randn(2, 3, 16, 16)
    before = network.eval()(images)
    for entries in attached(network).values():
        entries.detach()
    assert torch.equal(network(images), before)
    assert not attached(network)
    assert not any(module._forward_pre_hooks for module in network.modules())
    assert isinstance(network.conv.weight, nn.Parameter)


def _copied(module):
    return copy.deepcopy(module)


def _pickled(module):
    return pickle.loads(pickle.dumps(module))


@pytest.mark.parametrize("duplicate", [_copied, _pickled])
def test_a_copy_is_a_network_of_its_own(duplicate):
    network = create_model("cifar_resnet_8_4")
    select(network, "random:2+bn", statistics="frozen").apply(network)
    other = duplicate(network)
    name = "blocks.0.conv1.weight"
    entries = attached(other)[name]
    with torch.no_grad():
        entries.leaf.add_(1.0)
    assert torch.equal(other.state_dict()[name].flatten()[entries.index], entries.leaf)
    assert not torch.equal(attached(network)[name].leaf, entries.leaf)
    images = torch.randn(2, 3, 8, 8)
    assert not torch.equal(network(images), other(images))
    other.load_state_dict(network.state_dict())
    assert torch.equal(network(images), other(images))
    assert (other.bn.running_mean == 0).all()


def test_entries_of_weights_that_are_shared_or_computed_are_refused():
    tied = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3))
    tied[1].weight = tied[0].weight
    with pytest.raises(InputError, match="'0' and '1' share"):
        select(tied, "random:2")
    normed = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 3)))
    with pytest.raises(InputError, match="its weight is computed"):
        select(normed, "random:2")


def test_a_module_moved_after_apply_says_what_to_do():
    network = create_model("cifar_resnet_8_4")
    select(network, "random:2").apply(network)
    network.to("meta")
    with pytest.raises(InputError, match="move the module to its device first"):
        network(torch.randn(1, 3, 8, 8, device="meta"))


def test_an_unknown_policy_is_refused_at_once():
    with pytest.raises(InputError, match="did you mean frozen"):
        select(create_model("cifar_resnet_8"), "bn", statistics="freeze")


def test_a_failed_forward_pass_leaves_the_weight_in_its_place():
    network = create_model("cifar_resnet_8")
    select(network, "random:2").apply(network)
    with pytest.raises(RuntimeError):
        network(torch.randn(1, 4, 8, 8))
    assert isinstance(network.conv.weight, nn.Parameter)
