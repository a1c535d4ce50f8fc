"""Gammas whose zero removed nothing keep their values: the same channels go, and less changes."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from switched_networks import drawn
from test_compact import images
from test_compact_random import SLOW, modules
from torch import nn

from gammabeta.compact import compact_module, read_graph, shrink
from gammabeta.compact.snap import batch_norms

THRESHOLD = 0.3


class Stream(nn.Module):
    """A residual stream with two writers, a BatchNorm that cannot be folded, and zero padding."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.inside = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.back = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.before = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = F.relu(x + self.back(F.relu(self.inside(x))))
        return self.head(F.relu(self.before(x)).mean((2, 3)))


def with_small_gammas(module, small, seed=0):
    """small: the channels of every BatchNorm whose gamma is below the threshold, by name."""
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, norm in batch_norms(module).items():
            count = norm.num_features
            norm.weight.copy_(0.5 + torch.rand(count, generator=draws))
            norm.weight[small.get(name, [])] = 0.2
            norm.bias.copy_(torch.randn(count, generator=draws))
            norm.running_mean.copy_(torch.randn(count, generator=draws))
            norm.running_var.copy_(torch.rand(count, generator=draws) + 0.5)
    return module.eval()


def drawing(module):
    return shrink(read_graph(module, images(8))).gone


def stream():
    """Of the channels inside, 1 is off, 2 and 3 are constant and one of them has to stay."""
    small = {"stem.1": [0, 4], "inside.1": [1, 2, 3], "back.1": [0, 5], "before": [0, 6]}
    module = with_small_gammas(Stream(), small)
    with torch.no_grad():
        module.inside[1].bias[1:4] = torch.tensor([-1.0, 1.0, 2.0])
        module.stem[1].bias[0] = -1.0
    return module


@pytest.mark.slow
def test_only_zeros_that_remove_something_stay():
    torch.manual_seed(0)
    module = stream()
    plain = compact_module(module, images(8), threshold=THRESHOLD)
    assert plain.put_back == {}
    assert plain.zeros == {
        "stem.1": [0, 4],
        "inside.1": [1, 2, 3],
        "back.1": [0, 5],
        "before": [0, 6],
    }
    found = compact_module(module, images(8), threshold=THRESHOLD, keep_idle=True)
    # Channel 0 of the stream goes, since both of its writers are constant.
    assert found.zeros == {"stem.1": [0], "inside.1": [1, 2, 3], "back.1": [0], "before": [0]}
    assert found.put_back == {"stem.1": [4], "back.1": [5], "before": [6]}
    assert found.switched_off == {"stem.1": 1, "inside.1": 3, "back.1": 1, "before": 1}
    assert found.ledger.gone == plain.ledger.gone
    gone = {(entry.norm, entry.channel) for entry in found.ledger.entries if not entry.stays}
    assert gone == {("stem.1", 0), ("inside.1", 1), ("inside.1", 2), ("back.1", 0)}
    for name, norm in batch_norms(found.snapped).items():
        expected = batch_norms(module)[name].weight.detach().clone()
        expected[found.zeros[name]] = 0
        assert torch.equal(norm.weight, expected)
    with torch.no_grad():
        truth, some = module(images(8)), found.network(images(8))
        torch.testing.assert_close(some, found.snapped(images(8)), rtol=1e-4, atol=1e-5)
        assert (some - truth).abs().max() < (plain.network(images(8)) - truth).abs().max()


def assert_least(module, found, gone):
    """The slow twin: the same channels go, and with any other gamma put back one of them stays."""
    assert found.ledger.gone == gone
    norms = batch_norms(found.snapped)
    stays = {(entry.norm, entry.channel) for entry in found.ledger.entries if entry.stays}
    needed = [(name, each) for name in found.zeros for each in found.zeros[name]]
    for name, channel in sorted(stays.intersection(needed)):
        with torch.no_grad():
            norms[name].weight[channel] = batch_norms(module)[name].weight[channel]
            assert not drawing(found.snapped) >= gone
            norms[name].weight[channel] = 0
    return len(stays.intersection(needed))


class Sparse(nn.Module):
    """Of `mix`, row 0 alone reads channel 3: its gamma at zero takes that channel away, although
    row 0 itself stays, a constant behind zero padding."""

    def __init__(self):
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.mix = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.pads = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.side = nn.Conv2d(3, 4, 1)
        self.head = nn.Linear(4, 3)
        with torch.no_grad():
            self.mix[0].weight[1:, 3] = 0

    def forward(self, x):
        y = self.side(x) + self.pads(self.mix(self.one(x)))
        return self.head(F.relu(y).mean((2, 3)))


def sparse():
    module = with_small_gammas(Sparse(), {"mix.1": [0], "pads.1": [0, 1, 3]})
    with torch.no_grad():
        module.mix[1].bias[0] = 1.0
    return module


@pytest.mark.parametrize(("make", "needed"), [(stream, 1), (sparse, 1)])
def test_each_zero_that_stays_is_needed(make, needed):
    torch.manual_seed(0)
    module = make()
    found = compact_module(module, images(8), threshold=THRESHOLD, keep_idle=True)
    for name, norm in batch_norms(module).items():
        norm.weight.data[[*found.put_back.get(name, []), *found.zeros[name]]] *= 0  # all of them
    gone = drawing(module)
    assert gone
    assert found.put_back
    assert assert_least(make(), found, gone) == needed


@pytest.mark.slow
@settings(SLOW, max_examples=2)
@given(modules())
def test_of_random_networks_the_same_channels_go(module):
    """Their zeros were drawn; here they are small instead."""
    with torch.no_grad():
        for norm in batch_norms(module).values():
            norm.weight[norm.weight == 0] = 0.05
            norm.weight[0] = 1.0
    some = drawn(2, 3, 16, 16)
    found = compact_module(module, some, threshold=0.08, keep_idle=True)
    snapped = compact_module(module, some, threshold=0.08)
    assert found.ledger.gone == snapped.ledger.gone
    before = {name: norm.weight for name, norm in batch_norms(module).items()}
    for name, norm in batch_norms(found.snapped).items():
        back, zero = found.put_back.get(name, []), found.zeros[name]
        assert sorted([*back, *zero]) == snapped.zeros[name]
        assert torch.equal(norm.weight[back], before[name][back])
        assert not norm.weight[zero].any()
    torch.testing.assert_close(
        found.network(some), found.snapped(some).detach(), rtol=1e-4, atol=1e-4
    )
