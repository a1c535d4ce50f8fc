"""Each probe against a brute-force twin on a small trained run, and definitions at the border."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from few import few_images
from probed import all_images, by_hand, subject_of, trained
from torch import nn

from gammabeta import RunError, create_model
from gammabeta.probe import activity, analyze, clamp, gammas, maps, read
from gammabeta.probe.pack import pack, pack_scaled, unpack, unpack_scaled
from gammabeta.probe.relus import watched


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("runs"), seed=6)  # no seed that is one by chance


@pytest.fixture(autouse=True)
def _few(monkeypatch, quick):
    few_images(monkeypatch)


@pytest.fixture
def subject(run):
    return subject_of(run)


def test_gammas_are_those_of_the_checkpoint(run, subject):
    found = gammas.measure(subject)
    tensors = run.checkpoint().tensors
    everything = []
    for row in found["layers"]:
        for kind, key in (("gamma", "weight"), ("beta", "bias")):
            values = [float(each) for each in tensors[f"trained/{row['name']}.{key}"]]
            mean = sum(values) / len(values)
            std = (sum((each - mean) ** 2 for each in values) / len(values)) ** 0.5
            assert row[kind]["mean"] == pytest.approx(mean, rel=1e-5)
            assert row[kind]["std"] == pytest.approx(std, rel=1e-5)
            assert row[kind]["values"] == pytest.approx(values, rel=1e-5)
            assert row[kind]["low"] == pytest.approx(min(values), rel=1e-5)
            assert row[kind]["trained"] is True
            everything += values if kind == "gamma" else []
        assert row["on_shortcut"] == ("shortcut" in row["name"])
    assert (
        len(everything) == found["summary"]["gammas"] == run.folder.inputs["subset"]["trained"] / 2
    )
    assert min(everything) < 0 < max(everything)
    assert 0.01 in gammas.THRESHOLDS
    for threshold, share in zip(gammas.THRESHOLDS, found["shares"], strict=True):
        small = sum(abs(each) < threshold for each in everything)
        assert share == pytest.approx(small / len(everything), rel=1e-5)
    assert found["summary"]["small_share"] == pytest.approx(run.result["small_gammas"], rel=1e-5)


@torch.no_grad()
def test_a_gamma_at_the_threshold_is_not_small(subject):
    values = subject.network.bn.weight
    values.fill_(1)
    values[:3] = torch.tensor([0.01, -0.01, np.nextafter(np.float32(0.01), np.float32(0))])
    row = gammas.measure(subject)["layers"][0]
    assert row["name"] == "bn"
    assert row["gamma"]["small_share"] == 1 / len(values)
    others = sum(int((each.abs() < 0.01).sum()) for each in _gammas(subject.network)[1:])
    points = clamp.measure(subject, thresholds=(0.01,), draws=0)["points"]
    assert points[0]["clamped"] == 1 + others


def _gammas(network):
    return [m.weight for m in network.modules() if isinstance(m, nn.BatchNorm2d)]


@torch.no_grad()
def _accuracy(run, chosen):
    """Test accuracy with the chosen gammas (layer, channel) at zero, counted image by image."""
    network = run.network()
    for layer, channel in chosen:
        _gammas(network)[layer][channel] = 0
    images, labels = all_images(run)
    logits = by_hand(network, images)[2]
    return sum(int(a.argmax()) == int(b) for a, b in zip(logits, labels, strict=True)) / len(labels)


def test_clamping_against_a_twin(run, subject):
    before = {name: value.clone() for name, value in subject.network.state_dict().items()}
    thresholds = (0.0, 0.02, 0.3, 0.6, 5.0)
    points = clamp.measure(subject, thresholds, draws=2)["points"]
    after = subject.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    places = [(i, j) for i, g in enumerate(_gammas(run.network())) for j in range(len(g))]
    values = torch.cat(_gammas(run.network())).tolist()
    seen = set()
    for threshold, point in zip(thresholds, points, strict=True):
        small = [each for each, value in zip(places, values, strict=True) if abs(value) < threshold]
        assert point["clamped"] == len(small)
        assert point["share"] == pytest.approx(len(small) / len(places), rel=1e-5)
        assert point["test_accuracy"] == _accuracy(run, small)
        for draw, accuracy in enumerate(point["random"]):
            order = clamp.rng.generator(run.spec.seed, "probe/clamp", draw).permutation(len(places))
            assert accuracy == _accuracy(run, [places[each] for each in order[: len(small)]])
            seen.add(tuple(order))
    assert len(seen) == 2
    other = [
        clamp.rng.generator(0, "probe/clamp", draw).permutation(len(places)) for draw in (0, 1)
    ]
    assert not seen & {tuple(each) for each in other}  # the run's own seed is in it
    assert points[0]["test_accuracy"] == run.accuracy
    assert len({point["test_accuracy"] for point in points}) > 1
    assert len(set(points[-1]["random"])) == 1  # all of them, in any order


def test_activity_against_a_twin(run, subject):
    found = activity.measure(subject)
    relus, _, _ = by_hand(run.network(), all_images(run)[0])
    assert [row["name"] for row in found["layers"]] == list(relus)
    shares = []
    for row, out in zip(found["layers"], relus.values(), strict=True):
        off = [int((out[:, channel] == 0).sum()) for channel in range(out.shape[1])]
        assert row["shape"] == list(out.shape[1:])
        assert row["inputs"] == out[:, 0].numel()
        assert row["off"] == off
        assert row["high"] == pytest.approx([float(c.max()) for c in out.unbind(1)], rel=1e-4)
        assert row["low"] == pytest.approx([float(c.min()) for c in out.unbind(1)], rel=1e-4)
        here = [each / row["inputs"] for each in off]
        assert row["mostly_off"] == sum(each > 0.99 for each in here)
        assert row["dead"] == sum(each == 1 for each in here)
        shares += here
    assert found["summary"]["share"] == pytest.approx(sum(shares) / len(shares), rel=1e-5)
    assert found["summary"]["features"] == len(shares)


@torch.no_grad()
def test_dead_constant_and_mostly_off_are_told_apart(subject):
    bn = subject.network.bn
    bn.weight.fill_(1)
    bn.weight[:3] = 0
    bn.bias[:3] = torch.tensor([0.5, -1.0, 0.0])  # constant; dead; at zero: dead too
    row = activity.measure(subject)["layers"][0]
    assert (row["dead"], row["constant"]) == (2, 1)
    assert row["off"][:3] == [0, row["inputs"], row["inputs"]]
    assert (row["low"][0], row["high"][0]) == (0.5, 0.5)
    assert not activity.is_mostly_off(99, 100)
    assert not activity.is_mostly_off(99 * 1024, 100 * 1024)
    assert activity.is_mostly_off(99 * 1024 + 1, 100 * 1024)
    assert activity.is_mostly_off(100, 100)


def test_maps_against_a_twin(run, subject):
    found = maps.measure(subject)
    images, labels = all_images(run)
    _, convolutions, logits = by_hand(run.network(), images)
    chosen = found["images"]
    assert (len(chosen), chosen[0], chosen[-1]) == (8, 0, 49)
    assert found["labels"] == labels[chosen].tolist()
    assert found["predicted"] == logits[chosen].argmax(1).tolist()
    assert np.array_equal(unpack(found["pixels"]), subject.batches.data.test.images[chosen])
    assert [(row["place"], row["name"]) for row in found["layers"]] == [
        (1, "conv"),
        (4, "blocks.1.conv1"),
    ]  # of nine convolutions
    for row in found["layers"]:
        layer = run.network().get_submodule(row["name"])
        for packed, exact in ((row["maps"], convolutions[row["name"]][chosen]),
                              (row["filters"], layer.weight.detach())):  # fmt: skip
            inner = (2, 3) if packed is row["maps"] else (1, 2, 3)
            span = exact.amax(inner, keepdim=True) - exact.amin(inner, keepdim=True)
            wrong = (torch.from_numpy(unpack_scaled(packed)) - exact).abs()
            assert bool((wrong <= span / 500 + 1e-5).all())


def test_large_maps_are_averaged_down(run, subject, monkeypatch):
    monkeypatch.setattr(maps, "SIDE", 16)
    row = maps.measure(subject)["layers"][0]
    images, _ = all_images(run)
    exact = by_hand(run.network(), images)[1]["conv"][maps.measure(subject)["images"]]
    means = F.avg_pool2d(exact, 2)
    assert row["averaged"] == 2
    assert row["maps"]["shape"] == list(means.shape)
    assert np.allclose(unpack_scaled(row["maps"]), means.numpy(), atol=0.02)


@pytest.mark.parametrize("values", [np.array([[[1.0, 2.0], [4.0, 1.5]]]), np.full((2, 3, 3), -7.0)])
def test_packed_pictures(values):
    assert np.allclose(unpack_scaled(pack_scaled(values)), values, atol=3 / 510 + 1e-9)
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    assert np.array_equal(unpack(pack(pixels)), pixels)


class Ways(nn.Module):
    """Every way of writing a ReLU."""

    def __init__(self):
        super().__init__()
        self.act, self.inplace = nn.ReLU(), nn.ReLU(inplace=True)

    def forward(self, x):
        """Nine of them, each on its input less one."""
        x = F.relu(x) - 1
        x = torch.relu(x) - 1
        x = x.relu() - 1
        x = (x * 1).relu_() - 1
        x = F.relu(x, inplace=True) - 1
        x = self.act(x) - 1
        x = self.act(x) - 1
        return torch.relu_(self.inplace(x) - 1)


def test_every_way_of_writing_a_relu_is_seen_once():
    seen = []
    model = Ways()
    x = torch.linspace(-9, 9, 19).view(1, -1)
    with watched(model, lambda name, out: seen.append((name, out.clone()))):
        model(x.clone())
        names = [name for name, _ in seen]
        model(x.clone())
    assert names == ["relu1", "relu2", "relu3", "relu4", "relu5", "act.relu1", "act.relu2",
                     "inplace.relu1", "relu6"]  # fmt: skip
    assert [name for name, _ in seen] == names * 2
    for step, (_, out) in enumerate(seen[:9]):
        assert torch.equal(out, F.relu(x - step)), names[step]
    assert not any(child._forward_hooks or child._forward_pre_hooks for child in model.modules())
    model(x)
    assert len(seen) == 18


@pytest.mark.parametrize(
    ("name", "count"),
    [("cifar_resnet_8_4", 7), ("cifar_vgg_11", 8), ("imagenet_resnet_18_4", 17),
     ("imagenet_resnet_50_4", 49), ("report_resnet20", 20)],
)  # fmt: skip
def test_every_network_shows_its_relus(name, count):
    model = create_model(name).eval()
    shapes = {}
    with torch.no_grad(), watched(model, lambda key, out: shapes.update({key: out.shape[1]})):
        model(torch.zeros(1, 3, 32, 32))
    assert len(shapes) == count
    assert min(shapes.values()) >= 4


@pytest.mark.parametrize(
    "changes", [{"statistics": "batch"}, {"precision": "bf16"}, {"trainable": "none"},
                {"trainable": "random:2"}]
)  # fmt: skip
def test_evaluation_is_that_of_the_run(tmp_path, changes):
    run = trained(tmp_path, **changes)
    found = analyze(run, device="cpu")
    assert found["clamp"]["recorded"] == run.accuracy
    assert found["clamp"]["points"][0]["test_accuracy"] == run.accuracy
    recorded = run.result["small_gammas"]
    assert found["gammas"]["summary"]["small_share"] == pytest.approx(recorded, rel=1e-5)
    trains = run.spec.trainable == "bn"
    assert all(row["gamma"]["trained"] is trains for row in found["gammas"]["layers"])
    if run.spec.statistics == "batch":  # thirty-two at a time, as in training
        assert [len(labels) for _, labels in subject_of(run).test()] == [32, 18]


def test_what_figures_read(run):
    found = analyze(run, images=40, device="cpu", again=True)  # fewer than others here
    assert found["clamp"]["recorded"] is None  # of all images, not of forty
    folder = run.folder
    for kind in ("gamma", "beta"):
        values = read.layer_values(folder, kind)
        assert list(values) == [row["name"] for row in found["gammas"]["layers"]]
        assert values["bn"].tolist() == found["gammas"]["layers"][0][kind]["values"]
    thresholds, shares = read.small_curve(folder)
    assert (
        dict(zip(thresholds, shares, strict=True))[0.01]
        == found["gammas"]["summary"]["small_share"]
    )
    curve = read.clamp_curve(folder)
    assert curve.images == 40
    assert curve.random.shape == (3, len(curve.thresholds))
    assert curve.random[1, 4] == found["clamp"]["points"][4]["random"][1]
    layers = read.relu_activity(folder)
    assert layers[0].off.tolist() == [
        each / (40 * 32 * 32) for each in found["activity"]["layers"][0]["off"]
    ]
    shown = read.feature_maps(folder)
    assert shown[0].maps.shape == (8, 4, 32, 32)
    assert shown[0].images.shape == (8, 32, 32, 3)
    assert shown[0].filters.shape == (4, 3, 3, 3)
    assert len(shown[0].labels) == len(shown[0].predicted) == 8


def test_what_is_not_there_reads_as_none(tmp_path):
    folder = trained(tmp_path).folder
    assert read.small_curve(folder) is read.clamp_curve(folder) is read.layer_values(folder) is None
    assert read.relu_activity(folder) is read.feature_maps(folder) is None
    (folder.path / "probe").mkdir()
    (folder.path / "probe" / "clamp.json").write_text("{")
    assert read.clamp_curve(folder) is None


def test_a_refused_write_leaves_the_old_file(run, monkeypatch):
    folder = run.folder
    path = folder.write_probe("clamp", {"old": 1})
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "no space")))
        with pytest.raises(RunError, match="no space"):
            folder.write_probe("clamp", {"new": 2})
    assert folder.probe("clamp") == {"old": 1}
    assert [each.name for each in path.parent.iterdir() if each.name.startswith(".")] == []
