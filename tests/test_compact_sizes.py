"""Sizes of images: a compact network gives the original's logits or refuses, whatever the size."""

import json
import math
import shutil
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from switched_networks import Small, drawn, lost
from test_compact import switched_off
from torch import nn

from gammabeta import InputError, create_model
from gammabeta.compact import Network, Node, compact_module, encode, load, network, trace
from gammabeta.compact.network import fits, shown
from gammabeta.compact.sizes import conditions

SIDES = (1, 2, 3, 5, 8, 9, 10, 12, 17, 22, 31, 40)


class Branches(Small):
    """What other people's forwards ask of sizes."""

    def forward(self, x):
        h, w = x.shape[2:]
        y = self.start(F.pad(x, (0, 1)) if w % 2 else x)
        if w >= 10:
            y = F.max_pool2d(y, 2, ceil_mode=True)
        if h > w:
            y = y.transpose(2, 3).flip(3)
        if h * w + max(h, 3 * w) > 700 or (h // 4) % 3 == 2:
            y = -y
        return self.fc(F.relu(self.after(self.second(y))).mean((2, 3)))


class Pads(Small):
    """As TensorFlow pads, written out: round up, and more at one side."""

    def __init__(self):
        super().__init__()
        self.second = nn.Conv2d(8, 8, 3, stride=2)

    def forward(self, x):
        y = self.start(x)
        sides = []
        for size in reversed(y.shape[2:]):
            more = max((math.ceil(size / 2) - 1) * 2 + 3 - size, 0)
            sides += [more // 2, more - more // 2]
        return self.fc(F.relu(self.after(self.second(F.pad(y, sides)))).mean((2, 3)))


class Rounds(Small):
    """Of its sizes it asks what no file can say."""

    def forward(self, x):
        more = round(x.shape[3] / 3)
        return self.fc(F.pad(self.features(x), (0, more)).mean((2, 3)))


class Halves(Small):
    """Down to one pixel."""

    def forward(self, x):
        return self.fc(F.max_pool2d(self.features(x), 8).flatten(1))


def random_off(make):
    torch.manual_seed(0)
    return switched_off(make())


@pytest.fixture(scope="module")
def branches():
    module = random_off(Branches)
    return module, compact_module(module, drawn(2, 3, 16, 20))


def outcomes(module, found, sides=SIDES):
    """(H, W) -> whether the compact network takes it; if so, its logits are those of the module."""
    taken = {}
    for h in sides:
        for w in sides:
            some = drawn(2, 3, h, w)
            taken[h, w] = not found.refusal(some.shape)
            if taken[h, w]:
                with torch.no_grad():
                    torch.testing.assert_close(found(some), module(some), rtol=1e-4, atol=1e-4)
            else:
                with pytest.raises(
                    ValueError, match=f"no images of 2 x 3 x {h} x {w}: it was made"
                ):
                    found(some)
    return taken


def test_the_same_logits_or_a_refusal_at_every_size(branches):
    module, found = branches
    assert lost(found) > 0
    expected = {
        (h, w): w % 2 == 0 and w >= 10 and h <= w
        and not (h * w + max(h, 3 * w) > 700 or (h // 4) % 3 == 2)
        for h in SIDES
        for w in SIDES
    }  # fmt: skip
    assert outcomes(module, found.network) == expected
    assert {True, False} <= set(expected.values())
    (note,) = found.notes
    assert note.startswith("the network refuses images of 24x25, ")
    assert "W % 2 == 0" in note


def test_conditions_are_those_of_torch():
    images = drawn(2, 3, 16, 20)
    program = trace._draw(random_off(Branches), images, (2, 3))
    found = conditions(program)
    for h in range(1, 33):
        for w in range(1, 45):
            some = torch.empty(3, 3, h, w, device="meta")
            expected = all(
                eval(each, {"L": {"x": some}, "math": math}) for each in program._guards_code
            )
            assert all(fits(each, some.shape) for each in found) is expected, (h, w)
    with pytest.raises(AssertionError, match="Guard failed"):
        program.module()(drawn(2, 3, 16, 21))


def test_padding_that_rounds_up_fits_every_size():
    module = random_off(Pads)
    found = compact_module(module, drawn(2, 3, 16, 16))
    assert found.notes == []
    assert all(outcomes(module, found.network, (4, 5, 8, 13)).values())


def test_small_images_are_not_refused_for_the_sake_of_torch():
    module = switched_off(create_model("cifar_resnet_8_4"))
    found = compact_module(module, drawn(2, 3, 32, 32))
    assert all(outcomes(module, found.network, (1, 2, 5, 8)).values())


def test_one_pixel_on_the_way_leaves_sizes_free():
    module = random_off(Halves)
    found = compact_module(module, drawn(2, 3, 8, 8))
    taken = outcomes(module, found.network, (8, 9, 12))
    assert all(taken.values())
    assert {check.size for check in found.checks} == {(8, 8), (12, 10), (9, 9)}


@pytest.mark.parametrize(
    ("sides", "before", "after"),
    [((1, 1), nn.Identity(), 1), ((1, 9), nn.AvgPool2d(2, ceil_mode=True), 2),
     ((23, 15), nn.AvgPool2d(2, ceil_mode=True), 1), ((23, 15), nn.Identity(), 2)],
)  # fmt: skip
def test_a_single_channel_leaves_sizes_free(sides, before, after):
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), before,
        nn.Conv2d(4, 1, 3, padding=1), nn.BatchNorm2d(1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(after), nn.Flatten(), nn.Linear(after**2, 3),
    )  # fmt: skip
    found = compact_module(switched_off(module, 0.5), drawn(2, 3, *sides))
    assert all(outcomes(module, found.network, (1, 2, 3, 9, 22)).values())


def test_torch_is_as_before_a_trace_whether_it_succeeds_or_not():
    before = torch._C._conv_determine_backend_memory_format
    compact_module(random_off(Halves), drawn(2, 3, 8, 8))
    assert torch._C._conv_determine_backend_memory_format is before
    with pytest.raises(InputError):
        trace.read_graph(nn.Linear(3, 3), drawn(2, 3, 8, 8))
    assert torch._C._conv_determine_backend_memory_format is before


def test_pooling_stays_pooling_where_there_are_channels():
    made = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    steps = trace.read_graph(made, drawn(2, 3, 8, 8), any_size=True).steps.values()
    targets = [step.node.settings.get("target") for step in steps]
    assert "aten.adaptive_avg_pool2d.default" in targets


def test_a_graph_for_one_size_is_better_than_none():
    module = random_off(Rounds)
    found = compact_module(module, drawn(2, 3, 12, 12))
    (note,) = found.notes
    assert note.startswith("the network takes images of 12x12 only, as for several sizes this")
    assert lost(found) > 0
    assert outcomes(module, found.network, (11, 12, 24)) == {
        (h, w): h == w == 12 for h in (11, 12, 24) for w in (11, 12, 24)
    }


def test_a_file_refuses_the_same_sizes_and_needs_no_gammabeta(branches, tmp_path):
    _, found = branches
    path = tmp_path / "net.safetensors"
    found.save(path)
    assert load(path).conditions == found.network.conditions
    shutil.copy(network.__file__, tmp_path / "loader.py")
    code = (
        "import sys, torch; sys.modules['gammabeta'] = None\n"
        "from loader import load\n"
        "network = load('net.safetensors'); network(torch.zeros(1, 3, 12, 12))\n"
        "try: network(torch.zeros(1, 3, 12, 33))\n"
        "except ValueError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    expected = "takes no images of 1 x 3 x 12 x 33: it was made for N C H W with W % 2 == 0\n"
    assert done.stdout.endswith(expected)


def change(path, **fields):
    """The file with other fields in its description."""
    with safe_open(path, framework="pt") as file:
        description = json.loads(file.metadata()["gammabeta.network"]) | fields
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    kept = {name: value for name, value in description.items() if value is not None}
    save_file(tensors, path, {"gammabeta.network": json.dumps(kept)})


def test_formats(branches, tmp_path):
    path = tmp_path / "net.safetensors"
    path.write_bytes(encode(branches[1].network))
    change(path, format=1, conditions=None)
    old = load(path)
    assert old.conditions == []
    some = drawn(2, 3, 12, 12)
    torch.testing.assert_close(old(some), branches[1].network(some))
    change(path, format=3)
    with pytest.raises(ValueError, match="has format 3, and this version reads 1 to 2"):
        load(path)


@pytest.mark.parametrize(
    "condition",
    [["system", "ls"], ["==", ["size", -1], 2], ["size"], ["size", "0"], "W % 2 == 0", None, {},
     ["and", ["==", ["getattr", 1], 1]], [["size", 0]]],
)  # fmt: skip
def test_a_condition_is_nothing_that_runs(branches, condition, tmp_path):
    path = tmp_path / "net.safetensors"
    path.write_bytes(encode(branches[1].network))
    change(path, conditions=[condition])
    with pytest.raises(ValueError, match=r"is no network of gammabeta compact: .*condition"):
        load(path)


def test_conditions_are_shown_as_one_writes_them():
    w, h = ["size", 3], ["size", 2]
    assert shown(["==", ["%", ["+", w, -1], 2], 0], 4) == "(W + -1) % 2 == 0"
    assert shown(["or", ["<", h, 3], ["!=", ["max", w, 2], ["*", 2, h]]], 4) == (
        "(H < 3) or (max(W, 2) != 2 * H)"
    )
    net = Network([Node("x", "input")], "x", {}, [["<=", ["size", 2], 4]])
    with pytest.raises(
        ValueError, match="no images of 1 x 2 x 5: it was made for N C L with L <= 4"
    ):
        net(torch.zeros(1, 2, 5))
    with pytest.raises(ValueError, match="no images of 1 x 2: "):
        net(torch.zeros(1, 2))
