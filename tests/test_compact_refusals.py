"""Networks that compaction refuses, in one line, and operands it must see through."""

import pytest
import torch
import torch.nn.functional as F
from switched_networks import CastsFirst, CastsLast, CastsWithin, Small, check, drawn, lost, spoil
from test_compact import switched_off
from torch import nn

from gammabeta import InputError, RunError, select
from gammabeta.compact import compact_module


@pytest.mark.parametrize("make", [CastsFirst, CastsLast, CastsWithin])
def test_a_cast_hides_nothing(make, monkeypatch):
    spoil(monkeypatch, 1e-8)
    with pytest.raises(RunError, match="computes something else than the original"):
        compact_module(switched_off(make()), drawn(2, 3, 8, 8))


class OneBatch(Small):
    def forward(self, x):
        y = self.features(x).mean((2, 3))
        return self.fc(y.view(len(y), 4, 2).reshape(len(y), 8))


class EveryFourth(Small):
    def forward(self, x):
        return super().forward(x if x.shape[0] % 4 else -x)


class Tuples(Small):
    def forward(self, x):
        y = super().forward(x)
        return y, y.sum()


def with_policy(policy):
    module = switched_off(Small())
    select(module, "bn", statistics=policy).apply(module)
    return module


@pytest.mark.parametrize(
    ("make", "given", "message"),
    [
        (OneBatch, drawn(3, 3, 8, 8), r"fit 2 images, .* N == 3: .* x.shape\[0\] in place of len"),
        (
            EveryFourth,
            drawn(2, 3, 8, 8),
            "not fit 4 images, only numbers of them N with N % 4 != 0",
        ),
        (Tuples, drawn(2, 3, 8, 8), "returns more than one tensor: give"),
        (lambda: with_policy("batch"), drawn(2, 3, 8, 8), "norm normalises by the batch .* choose"),
        (Small, drawn(0, 3, 8, 8), r"images has the shape \(0, 3, 8, 8\): give a few"),
        (Small, [1], "images is a list: give a tensor"),
        (Small, torch.ones(2, 3, 8, 8, dtype=torch.int64), "images is int64: give them as"),
        (Small, torch.full((2, 3, 8, 8), torch.nan), "images holds nan or infinity"),
        (lambda: "net", drawn(2, 3, 8, 8), "a network is a torch.nn.Module"),
        (lambda: weight_normed(), drawn(2, 3, 8, 8), "the gammas of norm are computed at every"),
        (lambda: called(), drawn(2, 3, 8, 8), "be copied, as last keeps a tensor of its last call"),
        (lambda: Counts(), drawn(2, 3, 8, 8), "changes its buffer 'calls' at every call"),
    ],
)
def test_refusals(make, given, message):
    with pytest.raises(InputError, match=message) as error:
        compact_module(make(), given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("threshold", ["a", None, float("nan"), -1.0, float("inf"), True])
def test_thresholds_that_are_none(threshold):
    with pytest.raises(InputError, match="threshold") as error:
        compact_module(Small(), drawn(2, 3, 8, 8), threshold=threshold)
    assert error.value.about == "threshold"


class Operands(Small):
    """Parameters and buffers where others have the images."""

    def __init__(self):
        super().__init__()
        self.place = nn.Parameter(torch.randn(1, 8))
        self.query = nn.Linear(8, 8)
        self.mixed = nn.Conv2d(8, 8, 1)
        self.register_buffer("plane", torch.randn(1, 8, 2, 2))

    def forward(self, x):
        y = self.features(x).mean((2, 3))
        y = y + self.place.clone() + F.dropout(self.place, 0.1, self.training)
        y = y * torch.sigmoid(self.query(self.place.contiguous()))
        y = y + self.after(self.mixed(self.plane)).mean((2, 3)) + self.after(self.plane).sum()
        return F.linear(y, self.fc.weight.detach(), self.fc.bias)


def spectral():
    module = Small()
    nn.utils.parametrizations.spectral_norm(module.second)
    return module


@pytest.mark.parametrize(("make", "smaller"), [(Operands, True), (spectral, False)])
def test_parameters_as_operands(make, smaller):
    torch.manual_seed(0)
    module = switched_off(make())
    found = compact_module(module, drawn(2, 3, 8, 8))
    assert found.notes == []
    assert (lost(found) > 0) is smaller  # what reads a computed weight keeps its channels
    check(module, found, (3, 3, 9, 12))


class Positive(nn.Module):
    def forward(self, weight):
        return weight.abs()

    def right_inverse(self, weight):
        return weight


def test_gammas_that_are_computed_are_snapped_too():
    torch.manual_seed(0)
    module = switched_off(Small(), 0.0)
    nn.utils.parametrize.register_parametrization(module.norm, "weight", Positive())
    small = module.norm.weight.detach() < 0.5
    found = compact_module(module, drawn(2, 3, 8, 8), threshold=0.5)
    assert found.switched_off["norm"] == int(small.sum()) > 0
    assert torch.equal(found.snapped.norm.weight == 0, small)
    first, *_ = found.ledger.layers()
    assert first["after"] < 8  # one may stay for the border's sake
    check(found.snapped, found, (3, 3, 8, 8))
    assert nn.utils.parametrize.is_parametrized(module.norm)  # the module itself stays as it is


def weight_normed():
    module = switched_off(Small())
    with pytest.warns(FutureWarning):
        nn.utils.weight_norm(module.norm, dim=None)
    return module


class Keeps(Small):
    def forward(self, x):
        self.last = self.features(x)
        return self.fc(self.last.mean((2, 3)))


def called():
    module = switched_off(Keeps())
    module(drawn(2, 3, 8, 8))
    return module


class Counts(Small):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        self.calls += 1
        return super().forward(x)


def test_frozen_statistics_and_images_in_bfloat16():
    module = with_policy("frozen")
    found = compact_module(module, drawn(2, 3, 8, 8).bfloat16())
    check(module, found, (3, 3, 8, 8))
