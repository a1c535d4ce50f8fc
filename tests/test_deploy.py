"""gammabeta compact and export: from a run to files."""

import json

import pytest
import torch
import torch.nn.functional as F

from gammabeta import RunError, RunSpec, deploy, listen, train
from gammabeta.cli import main
from gammabeta.compact import load
from gammabeta.data import digits
from gammabeta.disk import write_files

SPEC = RunSpec(
    model="cifar_resnet_8_4", data="synthetic", epochs=1, batch_size=32, subsample=64,
    test_subsample=40, crop_padding=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of a second, in a folder `runs`."""
    folder = tmp_path_factory.mktemp("deploy")
    return train(SPEC, folder / "runs")


@pytest.fixture
def here(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(capsys, trained, *words):
    code = main([*(str(word) for word in words), "--runs", str(trained.folder.path.parent)])
    out, err = capsys.readouterr()
    return code, out, err


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def snapped_network(run, threshold):
    network = run.network()
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.weight.data[layer.weight.abs() < threshold] = 0
    return network


def test_compact_writes_a_network_and_a_ledger(here, trained, capsys):
    code, out, err = call(capsys, trained, "compact", trained.id, "--threshold", "0.1", "--json")
    assert code == 0, err
    assert files(here) == ["compact.ledger.json", "compact.safetensors"]
    shown = json.loads(out)
    assert shown["switched_off"] == sum(shown["switched_off_by_layer"].values()) > 0
    assert shown["images"] == 40
    assert shown["test_accuracy"]["snapped"] == shown["test_accuracy"]["compact"]
    rows = {row["network"]: row for row in shown["costs"]}
    assert rows["compact"]["parameters"] < rows["original"]["parameters"]
    assert rows["folded"]["operations"] == rows["original"]["operations"]
    ledger = json.loads((here / "compact.ledger.json").read_text())
    assert len(ledger["channels"]) == sum(row["before"] for row in shown["layers"])
    network = load(here / "compact.safetensors")
    assert network.about["run"] == trained.id
    assert network.about["input"]["mean"] == [0.485, 0.456, 0.406]
    assert network.about["input"]["height"] == network.about["input"]["width"] == 32
    assert network.about["input"]["centre_crop"] is None
    few = deploy.open_run(trained).few
    snapped = snapped_network(trained, 0.1)
    torch.testing.assert_close(network(few), snapped(few).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_compact_can_keep_gammas_whose_zero_removes_nothing(here, trained, capsys):
    words = ("compact", trained.id, "--threshold", "0.1", "--images", "20")
    code, out, err = call(capsys, trained, *words, "--keep-idle")
    assert code == 0, err
    ledger = json.loads((here / "compact.ledger.json").read_text())
    zero, back = ledger["gammas_set_to_zero"], ledger["gammas_put_back"]
    network = trained.network()
    for name, layer in network.named_modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            small = torch.nonzero(layer.weight.abs() < 0.1).flatten().tolist()
            assert sorted(zero[name] + back.get(name, [])) == small
            layer.weight.data[zero[name]] = 0
    number = sum(map(len, back.values()))
    assert number == ledger["put_back"] > 0
    assert f"gammas set to zero ({number} below the threshold keep their values" in out
    about = load(here / "compact.safetensors").about
    assert (about["threshold"], about["idle_gammas_kept"]) == (0.1, True)
    few = deploy.open_run(trained).few
    found = load(here / "compact.safetensors")(few)
    torch.testing.assert_close(found, network(few).detach(), rtol=1e-4, atol=1e-5)
    code, out, err = call(capsys, trained, *words, "--out", "b.safetensors", "--json")
    plain = json.loads(out)
    assert plain["layers"] == ledger["layers"]
    assert plain["put_back"] == 0
    assert plain["switched_off"] == ledger["switched_off"] + number


def test_compact_tells_what_happened(here, trained, capsys):
    code, out, err = call(
        capsys, trained, "compact", trained.id[:6], "--images", "10", "--out", "a.safetensors"
    )
    assert code == 0, err
    assert files(here) == ["a.ledger.json", "a.safetensors"]
    said = (
        "gammas set to zero: accuracy", "on 10 test images", "removed because", "operations",
        "checked: same logits up to", "and 17x41 and 32x32 and 33x33 and 48x40 pixels",
    )  # fmt: skip
    for words in said:
        assert words in out


@pytest.mark.slow
def test_phases_are_told_in_order(here, trained, capsys, monkeypatch):
    monkeypatch.setattr(listen, "PLAIN_SECONDS", 0)
    code, _, err = call(capsys, trained, "export", trained.id, "m.pt2", "--compact")
    assert code == 0
    assert err.splitlines() == [
        "reading the run and its test images ...",
        "drawing the graph ...",
        "removing what is switched off ...",
        "checking what is left ...",
        "exporting, and comparing with torch ...",
    ]
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert call(capsys, trained, "compact", trained.id, "--threshold", "9")[2].count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--threshold 5", "--threshold 5 would switch off all 4 channels of bn: write 0."),
        ("--threshold -1", "--threshold is -1: write 0 or more"),
        ("--threshold nan", "--threshold is nan"),
        ("--threshold inf", "--threshold inf would switch off all"),
        ("--threshold much", "'much' is not a number"),
        ("--images 41", "--images is 41, but run"),
        ("--images 0", "--images is 0"),
        ("--out net.bin", "--out: net.bin must end in .safetensors"),
        ("--out nowhere/a.safetensors", "there is no folder nowhere"),
        ("--data-dir x", "needs no files"),
    ],
)
def test_wrong_uses_of_compact(here, trained, capsys, words, message):
    code, out, err = call(capsys, trained, "compact", trained.id, *words.split())
    assert (code, out) == (2, "")
    assert message in err
    assert_one_line(err)
    assert files(here) == []


def assert_one_line(err):
    (line,) = err.splitlines()
    assert line.startswith("gammabeta: ")


def test_a_folder_where_the_ledger_would_be_is_noticed_at_once(here, trained, capsys):
    (here / "c.ledger.json").mkdir()
    code, out, err = call(capsys, trained, "compact", trained.id, "--out", "c.safetensors")
    assert (code, out) == (2, "")
    assert "--out: the ledger would be c.ledger.json, which is a folder" in err
    assert_one_line(err)


def test_a_run_that_evaluates_by_batch_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = train(SPEC.replace(statistics="batch"), "runs")
    code, _, err = call(capsys, run, "compact", run.id)
    assert code == 2
    assert "has no logits of its own" in err
    assert files(tmp_path) == ["runs"]


def test_both_files_or_none(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(RunError, match="could not write"):
        write_files({tmp_path / "a": b"1", tmp_path / "taken": b"2"})
    assert files(tmp_path) == ["taken"]


def test_both_files_or_the_old_ones(tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(RunError, match="could not write"):
        write_files({tmp_path / "a": b"1", tmp_path / "taken": b"2"})
    assert files(tmp_path) == ["a", "taken"]
    assert (tmp_path / "a").read_bytes() == b"old"
    write_files({tmp_path / "a": b"1", tmp_path / "b": b"2"})
    assert [(tmp_path / name).read_bytes() for name in "ab"] == [b"1", b"2"]
    assert files(tmp_path) == ["a", "b", "taken"]


def test_export_writes_a_program_that_says_how_images_are_normalised(here, trained, capsys):
    code, out, err = call(capsys, trained, "export", trained.id, "m.pt2", "--compact", "--json")
    assert code == 0, err
    assert files(here) == ["m.pt2"]
    shown = json.loads(out)
    assert shown["bytes"] == (here / "m.pt2").stat().st_size
    extra = {"gammabeta": ""}
    program = torch.export.load(here / "m.pt2", extra_files=extra)
    facts = json.loads(extra["gammabeta"])
    assert facts == shown["about"]
    assert facts["run"] == trained.id
    assert facts["threshold"] == 0.01
    assert facts["input"]["std"] == [0.229, 0.224, 0.225]
    few = deploy.open_run(trained).few
    snapped = snapped_network(trained, 0.01)
    torch.testing.assert_close(program.module()(few), snapped(few).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_export_times_three_networks_in_onnxruntime(here, trained, capsys):
    code, out, err = call(capsys, trained, "export", trained.id, "m.onnx", "--latency")
    assert code == 0, err
    assert files(here) == ["m.onnx"]
    for word in ("original", "folded", "compact", "ms for 1 (fastest)", "onnxruntime is within"):
        assert word in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("m.bin", "m.bin must end in .onnx or .pt2"),
        ("nowhere/m.pt2", "there is no folder nowhere"),
        ("m.pt2 --threshold 0.1", "--threshold belongs to --compact"),
        ("m.pt2 --keep-idle", "--keep-idle belongs to --compact"),
        ("m.pt2 --latency", "--latency measures onnxruntime"),
        ("m.pt2 --compact --threshold 9", "--threshold 9 would switch off all"),
        ("m.pt2 --data-dir x", "needs no files"),
    ],
)
def test_wrong_uses_of_export(here, trained, capsys, words, message):
    code, out, err = call(capsys, trained, "export", trained.id, *words.split())
    assert (code, out) == (2, "")
    assert message in err
    assert_one_line(err)
    assert files(here) == []


def test_a_file_says_how_a_digit_becomes_an_input(tmp_path, monkeypatch, capsys):
    """Whoever has a digit of 28 x 28 gray pixels and only the file gets the run's inputs."""
    monkeypatch.chdir(tmp_path)
    run = train(SPEC.replace(data="digits", batch_size=64), "runs")
    assert main(["export", run.id, "m.pt2"]) == 0
    extra = {"gammabeta": ""}
    torch.export.load("m.pt2", extra_files=extra)
    told = json.loads(extra["gammabeta"])["input"]
    made = told["made_from"]
    raw = digits._parse(digits._source_file())["test_images"][: deploy.CHECKED]
    assert raw.shape[1:] == (made["height"], made["width"]) == (28, 28)
    assert made["channels"] == "the gray value as red, green and blue"
    side = made["border"]
    gray = F.pad(torch.from_numpy(raw), (side,) * 4, value=made["border_value"])
    pixels = gray[:, None].expand(-1, 3, -1, -1)
    assert pixels.shape[2:] == (told["height"], told["width"]) == (32, 32)
    mean, std = (torch.tensor(told[key]).view(3, 1, 1) for key in ("mean", "std"))
    expected = deploy.open_run(run).few
    torch.testing.assert_close((pixels / 255 - mean) / std, expected)


def test_images_that_are_as_published_were_made_from_nothing_else(trained):
    assert deploy.open_run(trained).about["input"]["made_from"] is None
