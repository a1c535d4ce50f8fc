"""Compaction of other people's networks: what they do in their forward and what they are wrapped
in; and what is refused in one line."""

import pytest
import torch
import torch.nn.functional as F
from switched_networks import CastsFirst, CastsLast, CastsWithin, Small, check, drawn, lost, spoil
from test_compact import images, switched_off
from torch import nn

from gammabeta import RunError, create_model, select, sparse
from gammabeta.compact import compact_module, encode, load


class Shuffle(Small):
    """As ShuffleNet writes it: a view of what was made contiguous."""

    def forward(self, x):
        y = self.start(x)
        n, c, h, w = y.shape
        y = y.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)
        return self.fc(F.relu(self.after(self.second(y))).mean((2, 3)))


class Attends(Small):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        y = self.features(x).flatten(2).transpose(1, 2)
        return self.fc(self.attention(y, y, y)[0].mean(1))


class Normalises(Small):
    """Sizes of the images are in its graph: `expand` takes them."""

    def forward(self, x):
        return self.fc(F.normalize(self.features(x), dim=1).mean((2, 3)))


class Dense(Small):
    """As DenseNet: a BatchNorm over channels of two origins."""

    def __init__(self):
        super().__init__()
        self.both = nn.BatchNorm2d(16)
        self.fc = nn.Linear(16, 5)

    def forward(self, x):
        y = self.start(x)
        y = torch.cat([y, self.second(y)], 1)
        return self.fc(F.relu(self.both(y)).mean((2, 3)))


class Returns(Small):
    """As transformers: something with a logits in it."""

    def forward(self, x):
        return {"logits": super().forward(x)}


class Signal(nn.Module):
    """BatchNorm1d over (N, C, L)."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2),
            nn.Conv1d(8, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU(),
        )  # fmt: skip
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        return self.fc(self.layers(x).mean(2))


class Volume(Signal):
    """BatchNorm3d over (N, C, D, H, W)."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv3d(3, 8, 3, padding="same"), nn.BatchNorm3d(8), nn.ReLU(), nn.Conv3d(8, 8, 1),
            nn.BatchNorm3d(8), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x):
        return self.fc(self.layers(x).mean((2, 3, 4)))


def perceptron():
    """BatchNorm1d over (N, F)."""
    return nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))


def activated(make):
    """A network with an activation between BatchNorm and convolution."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), make(), nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4),
    )  # fmt: skip


# Module, and whether channels go: of a shuffle and of attention all stay, by design.
FORWARDS = [
    (CastsFirst, True), (CastsLast, True), (CastsWithin, True), (Shuffle, True), (Attends, True),
    (Normalises, True), (Dense, True), (Returns, True),
]  # fmt: skip


@pytest.mark.parametrize(("make", "smaller"), FORWARDS)
def test_what_a_forward_may_do(make, smaller):
    torch.manual_seed(0)
    module = switched_off(make())
    found = compact_module(module, drawn(3, 3, 12, 12))
    assert found.notes == []
    assert {check.size for check in found.checks} == {
        (12, 12), (18, 15), (6, 6), (13, 13), (7, 15), (3, 4),
    }  # fmt: skip
    assert all(check.fp64 < 1e-10 for check in found.checks)
    check(module, found, (1, 3, 12, 12), (5, 3, 9, 16))
    assert (lost(found) > 0) is smaller


@pytest.mark.parametrize(
    ("make", "shape", "others"),
    [
        (Signal, (3, 3, 20), [(1, 3, 33)]),
        (Volume, (2, 3, 4, 5, 6), [(3, 3, 6, 4, 5)]),
        (perceptron, (3, 12), [(1, 12), (7, 12)]),
    ],
)
def test_images_of_other_dimensions(make, shape, others):
    module = switched_off(make())
    found = compact_module(module, drawn(*shape))
    assert found.checks
    assert lost(found) > 0
    check(module, found, shape, *others)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.PReLU(8),
        nn.PReLU,
        nn.SELU,
        lambda: nn.CELU(0.7),
        lambda: nn.Threshold(0.1, 2.0),
        lambda: nn.Upsample(scale_factor=2),
    ],
)
def test_a_constant_channel_stays_constant(make):
    torch.manual_seed(0)
    module = switched_off(activated(make))
    found = compact_module(module, drawn(2, 3, 9, 9))
    first, *_ = found.ledger.layers()
    assert first["after"] == int((module[1].weight != 0).sum())
    check(module, found, (3, 3, 11, 8))


def test_channels_of_a_concatenation_go_one_by_one():
    torch.manual_seed(0)
    module = switched_off(Dense())
    module.both.weight.data[:] = 1.0
    module.both.weight.data[[1, 3, 8, 12, 13]] = 0.0
    found = compact_module(module, drawn(2, 3, 9, 9))
    second = next(row for row in found.ledger.layers() if row["layer"] == "second")
    assert (second["before"], second["after"]) == (8, 5)


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda net: torch.compile(net, backend="eager")])
def test_wrappers_are_left_out(wrap):
    module = switched_off(Small())
    found = compact_module(wrap(module), drawn(2, 3, 8, 8))
    assert set(found.switched_off) == {"norm", "after"}
    check(module, found, (3, 3, 8, 8))


def test_trained_entries_are_in_the_weights():
    module = switched_off(create_model("cifar_resnet_8_4"))
    subset = select(module, "bn+random:2")
    subset.apply(module)
    with torch.no_grad():
        for entries in sparse.attached(module).values():
            entries.leaf.add_(0.1)
    found = compact_module(module.eval(), images())
    check(module, found, (2, 3, 32, 32))
    assert sparse.attached(module)  # the module itself stays as it is


def test_a_network_in_fp32_alone_is_checked_in_fp32(monkeypatch):
    class Asks(Small):
        def forward(self, x):
            assert x.dtype == torch.float32
            return super().forward(x)

    module = switched_off(Asks())
    found = compact_module(module, drawn(2, 3, 8, 8))
    assert {check.fp64 for check in found.checks} == {None}
    assert [note.split(" (")[0] for note in found.notes] == ["this network does not run in fp64"]
    spoil(monkeypatch, 0.01)
    with pytest.raises(RunError, match=r"computes something else .* in fp32"):
        compact_module(module, drawn(2, 3, 8, 8))


def test_transformers_own_networks(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3
    )
    module = switched_off(transformers.ResNetForImageClassification(config))
    found = compact_module(module, drawn(2, 3, 32, 32))
    assert lost(found) > 0
    (tmp_path / "net.safetensors").write_bytes(encode(found.network))
    some = drawn(3, 3, 40, 32)
    expected = module(some).logits.detach()
    network = load(tmp_path / "net.safetensors")
    torch.testing.assert_close(network(some), expected, rtol=1e-4, atol=1e-4)
