"""Compaction of modules: the graph that torch.export draws, the checks, the file."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from networks import Foreign
from safetensors.torch import save_file
from torch import nn

import gammabeta.compact
from gammabeta import InputError, RunError, create_model
from gammabeta.compact import Network, Node, compact_module, encode, load, network, read_graph
from gammabeta.compact.fold import fold
from gammabeta.compact.measure import file_size, latencies, operations, parameters
from gammabeta.compact.verify import verify


class Mobile(nn.Module):
    """Depthwise convolutions, ReLU6, statements in place, dropout, a head of two layers."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8))
        self.wide = nn.Sequential(nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6())
        self.depth = nn.Sequential(
            nn.Conv2d(16, 16, 3, padding="same", groups=16, bias=False), nn.BatchNorm2d(16),
            nn.ReLU(inplace=True),
        )  # fmt: skip
        self.narrow = nn.Sequential(nn.Conv2d(16, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.head = nn.Sequential(
            nn.Dropout(0.5), nn.Linear(8, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 5)
        )

    def forward(self, x):
        x = F.relu(self.stem(x), inplace=True)
        y = self.narrow(self.depth(self.wide(x)))
        y += x
        return self.head(y.mean((2, 3)))


class Squeeze(nn.Module):
    """BatchNorm before convolutions, channels joined by cat, scaled by a gate, and a view."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.before = nn.BatchNorm2d(6)
        self.conv = nn.Conv2d(6, 8, 3, padding=1, bias=False)
        self.after = nn.BatchNorm2d(8)
        self.gate = nn.Linear(8, 8)
        self.join = nn.Sequential(nn.Conv2d(14, 6, 1), nn.BatchNorm2d(6), nn.ReLU())
        self.fc = nn.Linear(6 * 16, 4)

    def forward(self, x):
        x = self.stem(x)
        y = F.relu(self.after(self.conv(F.relu(self.before(x)))))
        y = y * torch.sigmoid(self.gate(y.mean((2, 3))))[:, :, None, None]
        x = self.join(torch.cat([x, y], 1))
        x = F.adaptive_avg_pool2d(x, 4)
        return self.fc(x.view(x.size(0), -1))


def switched_off(module, share=0.4, seed=0):
    """With statistics as after training, and this share of every BatchNorm's gammas at zero."""
    draws = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            count = layer.num_features
            with torch.no_grad():
                layer.weight.copy_(torch.rand(count, generator=draws) + 0.1)
                layer.weight[torch.rand(count, generator=draws) < share] = 0
                layer.weight[0] = 1
                layer.bias.copy_(torch.randn(count, generator=draws))
                layer.running_mean.copy_(torch.randn(count, generator=draws))
                layer.running_var.copy_(torch.rand(count, generator=draws) + 0.5)
    return module.eval()


def images(size=32, count=3):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


NETWORKS = {
    "resnet": (lambda: create_model("cifar_resnet_8_4"), 32),
    "imagenet": (lambda: create_model("imagenet_resnet_18_4"), 64),
    "mobile": (Mobile, 32),
    "squeeze": (Squeeze, 32),
    "foreign": (Foreign, 16),
}
SLOW = {"report": (lambda: create_model("report_resnet20"), 32),
        "vgg": (lambda: create_model("cifar_vgg_11"), 32),
        "bottleneck": (lambda: create_model("imagenet_resnet_50_4"), 64)}  # fmt: skip


@pytest.mark.parametrize(
    "name", [*NETWORKS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_a_smaller_network_with_the_same_logits(name):
    make, size = (NETWORKS | SLOW)[name]
    torch.manual_seed(0)
    module = switched_off(make())
    found = compact_module(module, images(size))
    assert found.notes == []
    larger = (size + size // 2, size + size // 4)
    sizes = {(size, size), larger, (size + 1, size + 1)}
    if name != "vgg":
        half, quarter = size // 2, size // 4
        sizes |= {(half, half), (half + 1, size + quarter + 1), (quarter, quarter + 1)}
    assert {check.size for check in found.checks} == sizes
    assert {check.count for check in found.checks} == {1, 3, 4}
    for batch in (1, 5):  # any number of images
        some = images(size, batch)
        with torch.no_grad():
            expected = module(some)
        torch.testing.assert_close(found.network(some), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found.folded(some), expected, rtol=1e-4, atol=1e-4)
    removed = sum(row["before"] - row["after"] for row in found.ledger.layers())
    if name == "foreign":  # all its channels meet in a product, which is not understood
        assert removed == 0
        return
    assert removed > 0
    assert parameters(found.network) < parameters(found.folded)
    assert operations(found.network, images(size, 1)) < operations(module, images(size, 1))


def test_every_batch_norm_behind_a_layer_is_folded():
    graph = read_graph(create_model("cifar_resnet_8_4").eval(), images())
    fold(graph)
    assert {step.node.op for step in graph.steps.values()} == {
        "input", "conv", "call", "flatten", "linear"
    }  # fmt: skip
    layers = {step.layer: step.norm for step in graph.steps.values() if step.layer}
    assert layers["blocks.1.shortcut.0"] == "blocks.1.shortcut.1"
    assert layers["fc"] == ""


class Twice(nn.Module):
    """One layer called twice, and names that look alike."""

    def __init__(self):
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1))
        self.a_0 = nn.Conv2d(3, 6, 1)
        self.norm = nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 2)

    def forward(self, x):
        x = F.relu(self.norm(self.a_0(self.a(self.a(x)))))
        return self.fc(x.mean([-1, -2]))


def test_a_layer_that_is_called_twice_is_two(tmp_path):
    module = switched_off(Twice())
    found = compact_module(module, images())
    assert [row["layer"] for row in found.ledger.layers()] == ["a.0", "a.0:2", "a_0", "fc"]
    assert found.ledger.layers()[2]["after"] < 6
    (tmp_path / "net.safetensors").write_bytes(encode(found.network))
    back = load(tmp_path / "net.safetensors")
    torch.testing.assert_close(back(images()), module(images()).detach())


def test_unknown_operations_stay_and_are_named():
    ledger = compact_module(switched_off(Squeeze()), images()).ledger
    why = {entry.why for entry in ledger.entries if entry.layer == "conv"}
    assert any("aten.mul.Tensor reads it, whose channels stay whole" in each for each in why)


def test_snap_sets_small_gammas_to_zero_and_leaves_the_module_alone():
    module = create_model("cifar_resnet_8_4").eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    found = compact_module(module, images(), threshold=0.1)
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])
    for name, layer in found.snapped.named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            small = before[f"{name}.weight"].abs() < 0.1
            assert torch.equal(layer.weight == 0, small)
            assert found.switched_off[name] == int(small.sum())
    assert sum(found.switched_off.values()) > 0


def test_a_threshold_that_empties_a_layer_is_refused():
    module = create_model("cifar_resnet_8_4").eval()
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    most = min(float(layer.weight.detach().abs().max()) for layer in norms)
    with pytest.raises(
        InputError, match=r"would switch off all \d+ channels of \S+: write"
    ) as error:
        compact_module(module, images(), threshold=2)
    told = float(re.search(r"write (\S+) or less", str(error.value))[1])
    assert most * 0.99 < told <= most  # so that it can be written
    with pytest.raises(InputError, match="threshold is -1: write 0 or more"):
        compact_module(module, images(), threshold=-1)


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x, y=None):
        return (self.norm(x), x) if y is None else x


class Depends(TwoInputs):
    def forward(self, x):
        return self.norm(x) if x.sum() > 0 else x


class Chooses(TwoInputs):
    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x - 1, (self.norm(x),))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Chooses(), "this network uses '.*cond'"),
        (nn.Sequential(nn.Conv2d(3, 4, 1)), "has no BatchNorm with a gamma"),
        (TwoInputs(), "returns more than one tensor: give a module whose forward returns"),
        (Depends(), "the graph of this network cannot be traced"),
    ],
)
def test_what_cannot_be_compacted(module, message):
    with pytest.raises(InputError, match=message) as error:
        compact_module(module.eval(), images(8))
    assert "\n" not in str(error.value)


def test_weights_that_are_not_finite_are_refused():
    module = switched_off(Mobile())
    module.wide[0].weight.data[0] = torch.nan
    with pytest.raises(InputError, match=r"'wide.0.weight' of this network is not finite"):
        compact_module(module, images())


def test_a_network_that_computes_something_else_is_refused():
    module = switched_off(create_model("cifar_resnet_8_4"))
    graph = read_graph(module, images())
    verify(module, graph.network(), images())
    graph.steps["fc"].node.tensors["bias"][3] += 1e-8
    with pytest.raises(
        RunError, match="computes something else than the original on 3 given images"
    ):
        verify(module, graph.network(), images())


class OneSize(nn.Module):
    """Only for one resolution."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.fc = nn.Linear(4 * 36, 2)

    def forward(self, x):
        return self.fc(self.conv(x).flatten(1))


def test_what_could_not_be_checked_is_said():
    found = compact_module(switched_off(OneSize()), images(8))
    assert [check.size for check in found.checks] == [(8, 8)] * 3
    assert found.notes == ["the network takes no images larger than 8x8"]


def test_the_file_comes_back(tmp_path):
    found = compact_module(switched_off(Squeeze()), images(), about={"classes": 4})
    path = tmp_path / "net.safetensors"
    path.write_bytes(encode(found.network))
    back = load(path)
    assert back.about == {"classes": 4}
    assert torch.equal(back(images()), found.network(images()))
    assert file_size(found.network) == path.stat().st_size


def test_the_file_needs_no_gammabeta(tmp_path):
    found = compact_module(switched_off(Mobile()), images())
    (tmp_path / "net.safetensors").write_bytes(encode(found.network))
    shutil.copy(network.__file__, tmp_path / "loader.py")
    torch.save(images(), tmp_path / "images.pt")
    code = (
        "import sys, json, torch; sys.modules['gammabeta'] = None; sys.modules['pickle5'] = None\n"
        "from loader import load\n"
        "images = torch.load('images.pt', weights_only=True)\n"
        "print(json.dumps(load('net.safetensors')(images).tolist()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    expected = found.network(images())
    torch.testing.assert_close(torch.tensor(json.loads(done.stdout)), expected)


def test_files_that_are_no_network(tmp_path):
    path = tmp_path / "net.safetensors"
    with pytest.raises(ValueError, match="does not exist"):
        load(path)
    path.write_text("nothing")
    with pytest.raises(ValueError, match="is no network of gammabeta compact"):
        load(path)
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="it has no description of a network"):
        load(path)


@pytest.mark.parametrize("target", ["aten.from_file.default", "os.system", "operator.setitem",
                                    "aten.nothing.default", "relu"])  # fmt: skip
def test_a_file_runs_only_harmless_operations(target):
    settings = {"target": target, "args": [{"input": 0}], "kwargs": {}}
    nodes = [Node("x", "input"), Node("y", "call", ("x",), settings)]
    with pytest.raises(ValueError, match="none that this version runs"):
        Network(nodes, "y")(images())


def test_latencies_are_measured_in_turns():
    calls = []
    found = latencies({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=5)
    assert calls == ["a", "b"] * 7
    for times in found.values():
        clock = [times[name] for name in ("fastest_ms", "low_ms", "median_ms", "high_ms")]
        assert clock == sorted(clock)


def test_the_processors_time_leaves_out_when_nothing_is_computed():
    (found,) = latencies({"sleeps": lambda: time.sleep(0.02)}, rounds=3).values()
    assert found["fastest_ms"] >= 20
    assert found["processor_ms"] < 10


def test_the_loader_stands_alone():
    source = Path(gammabeta.compact.__file__).with_name("network.py").read_text()
    assert "import gammabeta" not in source
    assert "from gammabeta" not in source
