"""The scripts of benchmarks/ run, go on where they stopped, and the pages quote them."""

import functools
import importlib.metadata
import importlib.util
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from gammabeta import Bank, RunSpec, create_model, deploy, load_network, train
from gammabeta.bench import members, rounds
from gammabeta.bench.memory import peak_allocated
from gammabeta.data import load_dataset
from gammabeta.data.augment import normalise
from gammabeta.environment import environment

ROOT = Path(__file__).parent.parent
SMALL = ["--batch-size", "4"]


def script(name):
    """A script of benchmarks/ as a module."""
    path = ROOT / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def call(monkeypatch):
    """Run a script with arguments, one step a repeat."""
    monkeypatch.setattr(rounds, "_SECONDS", 0.0)
    monkeypatch.setenv("TORCHINDUCTOR_FORCE_DISABLE_CACHES", "1")  # and back again afterwards

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        threads = torch.get_num_threads()
        try:
            script(name).main()
        finally:
            torch.set_num_threads(threads)

    return run


def test_the_pages_are_what_their_files_say():
    tables = script("tables")
    shown = []
    for path in tables.PAGES:
        page = path.read_text(encoding="utf-8")
        assert tables.render(page) == page, f"{path.name}: run python benchmarks/tables.py"
        shown += re.findall(r"^<!-- begin (\w+) -->$", page, re.MULTILINE)
    assert sorted(shown) == sorted(tables.TABLES)


def test_a_table_that_was_changed_by_hand_is_noticed():
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert "| ResNet-14 | 13.54 |" in page
    assert script("tables").render(page.replace("| 13.54 |", "| 12.54 |")) == page


def test_the_four_ways_of_many_tasks_agree_and_their_table_quotes_them(call, tmp_path, capsys):
    out = tmp_path / "bank.json"
    call("bank", "--out", out, "--model", "cifar_resnet_8_4", "--tasks", "1", "3", "--size", "8",
         "--repeats", "2", *SMALL)  # fmt: skip
    found = json.loads(out.read_text())
    assert [row["tasks"] for row in found["rows"]] == [1] * 4 + [3] * 4
    assert all(row["largest_difference"] <= 1e-6 for row in found["rows"])
    mixed, switched, *_ = found["rows"][4:]
    assert mixed["peak_bytes"] > switched["peak_bytes"] > 4 * 3 * 8 * 8  # of one sample's channel
    whole = found["rows"][6]
    assert whole["how"] == "a network for each task"
    assert whole["held_bytes"] == 2 * found["activate"]["network_bytes"]
    tables = script("tables")
    number = tables.number(found["rows"][4]["median_ms"], 3)
    assert f"| 3 tasks, one mixed pass | {number} |" in tables.bank_cpu(tmp_path)


TASKS = ["--data", "digits", "--model", "cifar_resnet_8_4", "--epochs", "1", "--tasks", "2",
         "--mixed", "50", "--batch-size", "100"]  # fmt: skip


@pytest.mark.slow
def test_tasks_are_trained_once_and_their_table_quotes_them(call, tmp_path, capsys):
    out, deltas = tmp_path / "tasks.json", tmp_path / "deltas"
    call("tasks", "--out", out, "--deltas", deltas, *TASKS)
    found = json.loads(out.read_text())
    assert found["images"] == 2 * 200
    assert found["other_answers"] == 0
    data = script("tasks").one_against_the_rest(load_dataset("digits"), 1)
    assert data.train.labels.mean() == data.test.labels.mean() == 0.5
    pixels = normalise(torch.from_numpy(data.test.images), data.mean, data.std)
    path = deltas / "1.bn+output.delta"
    right = load_network(path)(pixels).argmax(1) == torch.from_numpy(data.test.labels)
    row = found["tasks"][1]
    assert row["correct"] == dict.fromkeys(["mixed", "alone"], right.double().mean().item())
    text = script("tables").tasks(tmp_path)
    alone = f"{100 * row['correct']['alone']:.2f}"
    head = f"{100 * row['head']['correct']:.2f}"
    assert f"| 1 | {alone} | {alone} | {head} | {path.stat().st_size:,} |" in text
    trained, start = load_network(deltas / "1.output.delta"), create_model(
        "cifar_resnet_8_4", num_classes=2
    )  # fmt: skip
    right = trained(pixels).argmax(1) == torch.from_numpy(data.test.labels)
    assert row["head"]["correct"] == right.double().mean().item()
    for name, value in trained.named_parameters():
        same = torch.equal(value, start.get_parameter(name))
        assert same != name.startswith("fc."), name
    spec = RunSpec.from_dict(row["spec"])
    assert RunSpec.from_dict(row["head"]["spec"]) == spec.replace(trainable="output")
    (deltas / "0.bn+output.delta").unlink()
    written = path.stat().st_mtime_ns
    call("tasks", "--out", out, "--deltas", deltas, *TASKS)
    first, second = json.loads(out.read_text())["tasks"]
    assert second == row
    assert path.stat().st_mtime_ns == written
    assert first["train_loss"] == found["tasks"][0]["train_loss"]
    call("tasks", "--out", out, "--deltas", deltas, *TASKS, "--epochs", "2", "--tasks", "1")
    (again,) = json.loads(out.read_text())["tasks"]
    assert len(again["train_loss"]) == 2


@pytest.mark.slow
def test_a_bank_that_answers_otherwise_fails_the_script(call, tmp_path, monkeypatch):
    forward = Bank.forward
    monkeypatch.setattr(
        Bank, "forward", lambda bank, images, tasks: forward(bank, images, tasks=tasks[::-1])
    )
    with pytest.raises(SystemExit, match="the bank answers otherwise"):
        call("tasks", "--out", tmp_path / "tasks.json", "--deltas", tmp_path / "deltas", *TASKS)


def test_the_table_of_tune_marks_the_rate_that_was_tested(tmp_path):
    def run(trainable, lr, accuracy, validation=0.0):
        spec = RunSpec(trainable=trainable, lr=lr, validation=validation, data="digits")
        return {
            "spec": spec.to_dict(), "result": {"test_accuracy": accuracy},
            "subset": {"trained": 1770}, "data": {"train": 4000, "test": 1000},
            "sessions": [environment(torch.device("cpu"))],
        }  # fmt: skip

    runs = [
        run("bn", 0.1, 0.5, 0.1),
        run("bn", 1.0, 0.625, 0.1),
        run("bn", 1.0, 0.75),
        run("all", 0.1, 0.4, 0.1),
        run("all", 0.1, 0.3),
        run("beta", 1.0, 0.2, 0.1),
    ]
    (tmp_path / "tune.json").write_text(json.dumps(runs))
    text = script("tables").tune(tmp_path)
    assert "| `bn` | 1,770 | 50.0 | 62.5* | 75.0 |" in text
    assert "| `all` | 1,770 | 40.0* | - | 30.0 |" in text
    assert "| `beta` | 1,770 | - | 20.0 | - |" in text


@pytest.mark.slow
def test_speed_goes_on_and_its_table_quotes_it(call, tmp_path, capsys):
    out = tmp_path / "speed_cpu.json"
    given = ["--out", out, "--models", "cifar_resnet_8", "--repeats", "5", "--contenders", "lean",
             "--precision", "fp32", *SMALL]  # fmt: skip
    call("speed", *given, "--subsets", "bn", "--limit", "0")
    assert not out.exists()
    call("speed", *given, "--subsets", "bn")
    (first,) = json.loads(out.read_text())["groups"]
    call("speed", *given, "--subsets", "bn", "all")
    again, second = json.loads(out.read_text())["groups"]
    assert again == first
    assert [row["contender"] for row in second["rows"]] == ["torch", "convolutions", "lean"]
    call("speed", *given, "--subsets", "bn", "--again")
    _, remade = json.loads(out.read_text())["groups"]
    assert remade["trainable"] == "bn"
    assert remade != first
    tables = script("tables")
    text = tables.speed_cpu(tmp_path)
    number = tables.number(remade["rows"][2]["median_ms"], 3)
    assert f"| lean | {number} |" in text
    assert "**cifar_resnet_8, `all`**, batch 4" in text


def test_a_group_cut_short_is_measured_again():
    speed = script("speed")
    row = {"repeats": 7, "error": None}
    assert speed.complete({"rows": [row, {"repeats": 0, "error": "RuntimeError: no"}]})
    assert not speed.complete({"rows": [row, {"repeats": 3, "error": None}]})
    assert not speed.complete({"rows": [row, {"repeats": 0, "error": rounds.NO_TIME}]})


def test_members_and_their_table(call, tmp_path, monkeypatch):
    for kind in list(members.KINDS):
        monkeypatch.setitem(members.KINDS, kind, members.KINDS[kind][:2])
    out = tmp_path / "members_cpu.json"
    call("members", "--out", out, "--model", "cifar_resnet_8", "--repeats", "5", *SMALL)
    rows = json.loads(out.read_text())["rows"]
    assert len(rows) == 2 * 2 * 3
    assert not any(row["wrong"] for row in rows)
    text = script("tables").members_cpu(tmp_path)
    assert "cifar_resnet_8, 5 replicates, bf16, fused, in step" in text
    assert "(wrong)" not in text


def test_a_member_that_computes_something_else_is_marked():
    assert members._wrong([2.0, 2.0], [2.0, 2.0001], "fp32") is None
    assert "member 1: its first loss is 2" in members._wrong([2.0, 2.0], [2.0, 2.1], "fp32")
    assert members._wrong([2.0, float("nan")], [2.0, 2.1], "bf16") is not None


def test_each_way_of_members_has_steps_of_its_own(monkeypatch):
    """A slow way must not take as many steps as a fast one."""
    monkeypatch.setattr(members, "steps_for", lambda seconds: round(10 * seconds))
    seconds = {members.TOGETHER: 1.0, members.APART: 2.0, "eager, one after another": 3.0}

    def step(self, count):
        taken.append((self.name, count))
        return seconds[self.name] * count

    def teams(case, changes):
        made = {name: SimpleNamespace(name=name, times=[]) for name in seconds}
        for team in made.values():
            team.step, team.losses = functools.partial(step, team), lambda: [1.0]
        return made

    taken = []
    monkeypatch.setattr(members, "teams", teams)
    (case, _) = members.cases("cifar_resnet_8_4", "bn", 4, torch.device("cpu"))
    rows = members.measure_members(case, [{}], repeats=5)
    assert [row["steps"] for row in rows] == [10, 20, 30]
    assert [row["median_ms"] for row in rows] == [1000, 2000, 3000]
    assert taken[-3:] == list(zip(seconds, (10, 20, 30), strict=True))


def test_losses_and_their_table(call, tmp_path):
    out = tmp_path / "loss_cpu.json"
    call("loss", "--out", out, "--model", "cifar_resnet_8", "--steps", "3", *SMALL)
    rows = json.loads(out.read_text())["rows"]
    assert [row["kind"] for row in rows].count("engine") == 6
    judge, *others = rows
    for row in others:
        if row["order"] == 0:  # the same batches
            near = 1e-4 if row["precision"] == "fp32" else 2e-2
            assert row["first"] == pytest.approx(judge["first"], rel=near), row["what"]
            assert row["mean_last_off"] == pytest.approx(row["mean_last"] / judge["mean_last"] - 1)
        else:
            assert row["first"] != pytest.approx(judge["first"], rel=1e-3)
    assert [row["kind"] for row in rows].count("other rounding") == 4
    nudged = {row["end"] for row in rows if row["kind"] == "other rounding"}
    assert len(nudged) > 1
    text = script("tables").loss_cpu(tmp_path)
    assert "Over roundings: 0." in text
    assert f"| judge: torch fp32 | {judge['mean_last']:.4f} | +0.00% |" in text


def test_losses_in_double_precision(call, tmp_path):
    out = tmp_path / "loss_double.json"
    call("loss", "--double", "--out", out, "--model", "cifar_resnet_8", "--steps", "3", *SMALL)
    judge, lean = json.loads(out.read_text())["rows"]
    assert (judge["what"], lean["what"], lean["precision"]) == ("torch", "lean", "fp64")
    assert lean["end"] == pytest.approx(judge["end"], rel=1e-13)
    assert lean["end_off"] == lean["end"] / judge["end"] - 1
    text = script("tables").loss_double(tmp_path)
    assert f"| judge: torch fp64 | {judge['mean_last']:.4f} | +0.00% |" in text
    assert "Standard deviation" not in text


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A run of a second."""
    spec = RunSpec(
        model="cifar_resnet_8_4", data="synthetic", epochs=1, batch_size=32, subsample=64,
        test_subsample=40, crop_padding=2,
    )  # fmt: skip
    return train(spec, tmp_path_factory.mktemp("tiny") / "runs")


def test_compact_wants_torch_pruning_where_it_is_asked_for(call, tiny, tmp_path, monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(importlib.metadata, "version", missing)
    runs = tiny.folder.path.parent
    with pytest.raises(SystemExit, match=r"pip install --no-deps torch-pruning, or leave it out"):
        call("compact", "--runs", runs, "--ids", tiny.id, "--out", tmp_path / "compact.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_what_compact_says_of_a_network(tiny):
    compact = script("compact")
    deployed = deploy.open_run(tiny)
    judge, made = compact.Judge(deployed), deployed.compact(0.1)
    row = judge.row({"network": "compact"}, made.network, made.snapped)
    with torch.no_grad():
        (images, labels), *others = deployed.batches.test()
        found, before = made.network(images), deployed.network(images)
    assert others == []
    assert row["images"] == 40
    assert row["test_accuracy"] == pytest.approx(float((found.argmax(1) == labels).sum()) / 40)
    assert row["answers_changed"] == int((found.argmax(1) != before.argmax(1)).sum())
    assert row["largest_logit_change"] == float((found - before).abs().max()) > 1e-3
    assert row["off_by_rounding"] < 1e-5
    assert compact.channels(made)["channels"] < compact.channels(made)["channels_before"] == 84


@pytest.mark.slow
def test_compact_and_its_tables(call, tiny, tmp_path):
    out = tmp_path / "compact.json"
    given = ["--runs", tiny.folder.path.parent, "--ids", tiny.id, "--out", out, "--rounds", "5",
             "--thresholds", "0", "0.1", "--batches", "2"]  # fmt: skip
    call("compact", *given, "--parts", "networks", "latency")
    first = json.loads(out.read_text())[tiny.id]
    assert [row["parameters"] for row in first["networks"]["rows"]][:2] == [5214, 5130]
    assert len(first["latency"]["rows"]) == 6
    call("compact", *given, "--parts", "latency")
    again = json.loads(out.read_text())[tiny.id]
    assert again["networks"] == first["networks"]
    assert again["latency"] != first["latency"]
    tables = script("tables")
    assert "| original | - | - | 5,214 |" in tables.compact_networks(tmp_path)
    number = tables.number(again["latency"]["rows"][2]["median_ms"], 3)
    assert f"| torch, batch of 2, compact | {number} |" in tables.compact_latency(tmp_path)


def test_torch_prunings_groups_are_those_of_the_network():
    pytest.importorskip("torch_pruning")
    compact = script("compact")
    model = create_model("cifar_resnet_8_4")
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.weight.data.fill_(1.0)
            layer.weight.data[0] = 0.0 if name in ("bn", "blocks.0.bn1") else 0.3
    network = compact.traceable(model)
    groups = compact.prune_below(network, torch.randn(2, 3, 32, 32), 0.2)
    lost = {tuple(group["norms"]): group["removed"] for group in groups}
    assert lost.pop(("blocks.0.bn1",)) == 1
    assert lost.pop(("blocks.0.bn2", "bn")) == 1  # the mean of 0 and 0.3
    assert set(lost.values()) == {0}
    assert compact.widths(network)["blocks.0.bn2"] == 3


def test_peak_memory_is_what_is_alive_at_once():
    def call():
        torch.empty(1 << 20)  # gone again
        one, two = torch.empty(1 << 19), torch.empty(1 << 19)
        return one + two

    assert [peak_allocated(call, torch.device("cpu")) for _ in range(2)] == [3 << 21] * 2
