"""The policies for running statistics, which no train() or eval() can undo."""

import pytest
import torch
from networks import Foreign, Mixed
from torch import nn

from gammabeta import InputError, select
from gammabeta.statistics import set_statistics_policy


def _buffers(module):
    return {name: buffer.clone() for name, buffer in module.named_buffers()}


def _images(count=4):
    return torch.randn(count, 3, 6, 6, generator=torch.Generator().manual_seed(1)) * 3 + 2


def _network(kind):
    torch.manual_seed(0)
    network = kind()
    if kind is Mixed:
        network.sync = nn.Identity()  # needs a GPU to run
    for module in network.modules():
        if getattr(module, "running_mean", None) is not None:
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return network


@pytest.mark.parametrize("kind", [Mixed, Foreign])
@pytest.mark.parametrize("training", [True, False])
def test_frozen_never_moves_and_computes_as_in_evaluation(kind, training):
    network = _network(kind)
    expected = network.eval()(_images())
    set_statistics_policy(network, "frozen")
    before = _buffers(network)
    network.train(training)
    torch.testing.assert_close(network(_images()), expected)
    assert all(torch.equal(value, before[name]) for name, value in _buffers(network).items())
    assert all(module.training == training for module in network.modules())


def test_batch_normalises_by_the_batch_even_in_evaluation_and_never_moves():
    network = _network(Mixed)
    expected = network.train()(_images())
    network = _network(Mixed)
    set_statistics_policy(network, "batch")
    before = _buffers(network)
    for training in (True, False):
        network.train(training)
        torch.testing.assert_close(network(_images()), expected)
    assert all(torch.equal(value, before[name]) for name, value in _buffers(network).items())
    assert network.batch.track_running_stats is True


@pytest.mark.parametrize("policy", ["frozen", "batch"])
def test_track_again_is_what_torch_does(policy):
    network, plain = _network(Mixed), _network(Mixed)
    set_statistics_policy(network, policy)
    set_statistics_policy(network, "track")
    torch.testing.assert_close(network(_images()), plain(_images()))
    for name, value in _buffers(plain).items():
        assert torch.equal(value, _buffers(network)[name])
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_a_layer_is_as_before_after_a_failed_pass():
    layer = nn.BatchNorm2d(3)
    set_statistics_policy(layer, "batch")
    layer.eval()
    with pytest.raises(ValueError, match="expected 4D"):
        layer(torch.randn(3))
    assert (layer.training, layer.track_running_stats) == (False, True)


def test_gradients_reach_gamma_under_every_policy():
    for policy in ("track", "frozen", "batch"):
        network = _network(Mixed)
        select(network, "bn", statistics=policy).apply(network)
        network(_images()).backward(torch.randn(4, 5))
        assert network.batch.weight.grad.abs().sum() > 0


def test_an_unknown_policy_is_refused():
    with pytest.raises(InputError, match="did you mean frozen"):
        set_statistics_policy(nn.BatchNorm2d(2), "freeze")
