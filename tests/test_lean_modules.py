"""Networks that lean converts: however they are written, and what stays stock."""

import copy
import random

import pytest
import torch
import torch.nn.functional as F
from random_gradients import draw, gradients
from torch import nn

from gammabeta import create_model, select
from gammabeta.lean import convert, restore


class Written(nn.Module):
    """Ways of writing a block in which a careless conversion goes wrong."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.calls = kind, 0
        self.conv, self.bn = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16)
        self.act = {"relu6": nn.ReLU6(True), "silu": nn.SiLU(True)}.get(kind, nn.ReLU(True))

    def forward(self, x):
        if self.kind == "random" and torch.rand(()) < 2:
            return self.bn(self.conv(x)).relu() + random.random()
        if self.kind == "counts":
            self.calls += 1
        z = self.conv(x)
        y = self.bn(z)
        if self.kind == "method statement":
            y.relu_()
            return y
        if self.kind == "module statement":
            self.act(y)
            return y
        if self.kind == "late":
            h = z * 1
            y = self.bn(z)
            h.add_(1)
            return F.relu(y + h)
        if self.kind == "mutated":
            h = z * 1
            return h.add_(y).relu() + h
        if self.kind == "constant":
            return F.relu(y) + torch.tensor([1.5]).double()
        return self.act(y)


class Masked(Written):
    def forward(self, x, mask=None):
        out = super().forward(x)
        return out if mask is None else out * mask


# Kind -> whether its norm is converted.
KINDS = {"method statement": True, "module statement": True, "relu6": True, "silu": True,
         "late": True, "mutated": True, "plain": True, "constant": True, "counts": False,
         "optional": False}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_however_a_block_is_written(kind):
    model = (Masked if kind == "optional" else Written)(kind).double()
    model.conv.requires_grad_(False)
    attributes = set(model.__dict__)
    twin = copy.deepcopy(model)
    rows = {row.name: row.how for row in convert(model)}
    assert rows["bn"].startswith("norm") == KINDS[kind], rows
    assert ("forward" in model.__dict__) == KINDS[kind]
    assert set(model.__dict__) - {"forward"} == attributes
    assert model.calls == 0
    x = draw(2, 3, 6, 6)
    ours, theirs = model(x), twin(x)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(
        gradients(ours, [model.bn.weight])[0], gradients(theirs, [twin.bn.weight])[0]
    )
    assert model.calls == twin.calls
    if kind == "optional":
        torch.testing.assert_close(model(x, draw(16, 1, 1)), twin(x, draw(16, 1, 1)))


def test_random_choices_are_not_frozen_and_drawing_uses_up_no_randomness():
    model = Written("random")
    random.seed(1)
    expected = random.random()
    random.seed(1)
    rows = convert(model)
    assert random.random() == expected
    assert "random numbers" in rows[0].how
    model.eval()
    x = torch.ones(1, 3, 4, 4)
    assert len({model(x).sum().item() for _ in range(5)}) == 5


@pytest.mark.parametrize("training", [True, False])
def test_a_network_in_bf16(training):
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU())
    model[0].requires_grad_(False)
    model[1].running_mean.uniform_(-1, 1)
    model = model.bfloat16().train(training)
    twin = copy.deepcopy(model)
    convert(model)
    x = draw(4, 3, 8, 8, dtype=torch.bfloat16)
    ours, theirs = model(x), twin(x)
    torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.05)
    assert gradients(ours, [model[1].weight])[0].dtype == torch.bfloat16
    torch.testing.assert_close(model[1].running_var, twin[1].running_var, rtol=0.02, atol=0.02)


def test_an_empty_batch_leaves_the_statistics_alone():
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU())
    convert(model)
    assert model(torch.randn(0, 3, 8, 8)).shape == (0, 16, 6, 6)
    assert (model[1].running_var == 1).all()


def test_a_weight_that_changes_behind_torchs_back_is_used():
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16))
    model[1].requires_grad_(False)
    convert(model)
    x = draw(1, 3, 8, 8, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        before = model(x)
        model[1].weight.data.mul_(-1)
        after = model(x)
    torch.testing.assert_close(after.float(), -before.float(), rtol=0.05, atol=0.05)


class Strange(nn.Module):
    """What other people write: dropout by mode, a loop over data, a norm that is also read."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.inner = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding="same"), nn.BatchNorm2d(8), nn.ReLU(True)
        )

    def forward(self, x):
        y = self.conv(x)
        if self.kind == "mode":
            return F.dropout(F.relu(self.bn(y)), 0.5, self.training)
        if self.kind == "data" and y.sum() > 0:
            return self.inner(y)
        if self.kind == "read":
            z = self.bn(y)
            return F.relu(z) + z
        if self.kind == "broadcast":
            return F.relu(self.bn(y) + y.mean((2, 3), keepdim=True))
        if self.kind == "scaled":
            return F.relu(torch.add(self.bn(y), y, alpha=2))
        if self.kind == "itself":
            z = self.bn(y)
            return F.relu(z + z)
        return F.relu(self.inner(self.bn(y).relu_()) + y.relu())


@pytest.mark.parametrize("kind", ["mode", "data", "read", "broadcast", "scaled", "itself", "inner"])
def test_strange_networks_stay_right(kind):
    model = Strange(kind).double()
    select(model, "bn").apply(model)
    twin = copy.deepcopy(model)
    rows = {row.name: row.how for row in convert(model)}
    if kind == "mode":
        assert "mode" in rows["conv"]
        model.eval()
        twin.eval()
    if kind == "data":
        assert rows["bn"].startswith("stock: its graph cannot be drawn")
        assert rows["inner.1"] == "norm + relu"  # what can be drawn is converted
        assert rows["inner.0"] == "stock: its padding"
    x = draw(2, 3, 6, 6)
    ours, theirs = model(x), twin(x)
    torch.testing.assert_close(ours, theirs)
    for one, other in zip(
        gradients(ours, [p for p in model.parameters() if p.requires_grad]),
        gradients(theirs, [p for p in twin.parameters() if p.requires_grad]), strict=True,
    ):  # fmt: skip
        if one is not None or other is not None:
            torch.testing.assert_close(one, other)


def test_layers_with_hooks_of_their_own_and_subclasses_stay_stock():
    class Act(nn.BatchNorm2d):
        def forward(self, x):
            return F.relu(super().forward(x))

    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), Act(4), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU()
    )
    model.requires_grad_(False)
    seen = []
    model[2].register_forward_hook(lambda *_: seen.append(1))
    rows = {row.name: row.how for row in convert(model)}
    assert rows == {"0": "frozen convolution", "1": "stock: a Act", "2": "stock: it has hooks",
                    "3": "norm + relu"}  # fmt: skip
    model(draw(2, 3, 8, 8, dtype=torch.float32))
    assert seen == [1]


def test_a_converted_network_under_vmap_is_refused():
    """By torch: it needs rules that these functions do not have. Nothing wrong is computed."""
    model = create_model("cifar_resnet_8_4").requires_grad_(False).eval()
    convert(model)
    images = torch.zeros(2, 1, 3, 32, 32)
    with pytest.raises(RuntimeError, match="functorch"):
        torch.func.vmap(model)(images)
    restore(model)
    assert torch.func.vmap(model)(images).shape == (2, 1, 10)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler's own making
def test_a_converted_network_compiles_as_the_stock_one():
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = []
    for converted in (False, True):
        model = create_model("cifar_resnet_8_4").train()
        select(model, "bn").apply(model)
        if converted:
            convert(model)
        logits = torch.compile(model, backend="aot_eager")(images)
        logits.square().sum().backward()
        gradients = [p.grad for p in model.parameters() if p.requires_grad]
        found.append([logits.detach(), *gradients, model.bn.running_mean])
    for stock, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, stock)
    assert len(found[0]) > 10
