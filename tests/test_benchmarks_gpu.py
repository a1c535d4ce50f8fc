"""The script for a lent GPU: its checks can fail, and what breaks takes nothing else with it."""

import argparse
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import gpu
import gpu_compile
import gpu_pieces as pieces
import pytest
import tables
import torch

from gammabeta import RunSpec
from gammabeta.engine.batches import Batches
from gammabeta.engine.lean import LeanEngine

ROOT = Path(__file__).parent.parent


@pytest.fixture
def session(tmp_path, monkeypatch):
    """A session of the GPU's script whose pieces are what `answer` returns, or a process of
    `source`."""

    def make(source=None, **given):
        options = argparse.Namespace(
            limit=60, out=tmp_path / "gpu.json", again=False, pack=tmp_path / "state.tar.gz",
            runs=tmp_path / "runs", device="cpu", smoke=True, data_dir=None, models=None,
            imagenet_batch=64, parts=["steps"],
        )  # fmt: skip
        vars(options).update(given)
        monkeypatch.setattr(gpu, "STARTED", gpu.time.monotonic())
        made = gpu.Session(options, tmp_path)
        if source is not None:
            program = tmp_path / "program.py"
            program.write_text("import json, sys, time, pathlib\n" + source)
            monkeypatch.setattr(pieces, "__file__", str(program))
        return made

    return make


def test_a_piece_that_fails_is_written_and_the_rest_goes_on(session, tmp_path):
    answers = {"one": {"error": "no"}, "two": {"result": 2, "partial": 1}}

    def part(**given):
        made = session(**given)
        made.answer = lambda piece, seconds: dict(answers[piece["x"]])
        made.part("steps", [(name, {"x": name}) for name in answers])
        return json.loads((tmp_path / "gpu.json").read_text())["steps"]

    first = part()
    assert first["one"]["error"] == "no"
    assert first["two"].keys() == {"result", "seconds"}
    answers |= {"one": {"result": 1}, "two": {"result": 3}}
    found = part()
    assert [found[name]["result"] for name in answers] == [1, 2]
    assert part(again=True)["two"]["result"] == 3


def test_a_check_is_good_for_its_commit_only(session):
    made = session()
    made.report.add("check", "lean", {"result": [], "environment": {"commit": "another"}})
    made.report.add("steps", "x", {"result": [], "environment": {"commit": "another"}})
    assert not made.report.has("check", "lean")
    assert made.report.has("steps", "x")


def test_who_breaks_a_piece_is_left_out_of_it(session):
    made, seen = session(), []

    def answer(piece, seconds):
        seen.append(list(piece["avoid"]))
        if "fused" not in piece["avoid"]:
            return {"error": "CUDA error", "broke": "fused", "partial": 1}
        return {"result": 5}

    made.answer = answer
    found = made.tried({"part": "steps"}, math.inf)
    assert seen == [[], ["fused"]]
    assert (found["result"], found["broke"]) == (5, ["fused: CUDA error"])
    assert "partial" not in found
    seen.clear()
    assert made.tried({"part": "compiled"}, math.inf)["partial"] == 1
    assert len(seen) == 1


def test_a_piece_that_hangs_is_killed_and_what_it_had_is_kept(session, monkeypatch):
    told = """
pathlib.Path(sys.argv[2]).write_text(json.dumps({"partial": [1], "under_way": "fused"}))
time.sleep(60)
"""
    monkeypatch.setattr(gpu, "GRACE", 1)
    made = session(told)
    found = made.answer({"part": "steps"}, 1.0)
    assert found == {"partial": [1], "error": "killed after 2 s, at fused", "broke": "fused"}
    assert made.process.returncode == -signal.SIGKILL
    crashed = session("sys.exit(3)").answer({"part": "steps"}, 30.0)
    assert crashed == {"error": "died with 3"}


def test_what_is_packed_comes_back_and_what_is_there_stays(session, tmp_path):
    made = session()
    run = made.options.runs / "abc" / "spec.json"
    run.parent.mkdir(parents=True)
    run.write_text("1")
    made.report.add("steps", "x", {"result": 1})
    with gpu.ended(made):
        pass
    other = tmp_path / "elsewhere"
    gpu.unpack(made.options.pack, other / "gpu.json", other / "runs")
    assert (other / "runs/abc/spec.json").read_text() == "1"
    assert json.loads((other / "gpu.json").read_text()) == {"steps": {"x": {"result": 1}}}
    (other / "runs/abc/spec.json").write_text("2")
    gpu.unpack(made.options.pack, other / "gpu.json", other / "runs")
    assert (other / "runs/abc/spec.json").read_text() == "2"


def test_runs_are_trained_by_engines_that_hold_in_their_precision_and_subset():
    cpu = torch.device("cpu")

    def row(engine, subset="bn", precision="bf16", good=True, **more):
        return {"engine": engine, "subset": subset, "precision": precision, "good": good, **more}

    run = gpu.PAPER[0]
    assert run.precision == "bf16"
    fine = [row("fused"), row("lean"), row("lean", "all")]
    assert pieces.engines_for(run, fine, cpu) == ["fused", "lean", "eager"]
    assert pieces.engines_for(run, fine, cpu, ["fused"]) == ["lean", "eager"]
    assert pieces.engines_for(run.replace(trainable="all"), fine, cpu) == ["lean", "eager"]
    assert pieces.engines_for(run, [], cpu) == ["eager"]
    bad = [*fine, row("lean", good=False)]
    assert pieces.engines_for(run, bad, cpu) == ["fused", "eager"]
    assert pieces.engines_for(run.replace(trainable="all"), bad, cpu) == ["lean", "eager"]
    assert pieces.engines_for(run.replace(trainable="random:2"), bad, cpu) == ["eager"]
    assert pieces.engines_for(run, [row("fused", precision="fp32")], cpu) == ["eager"]
    assert pieces.engines_for(run, [row("fused", refused="x")], cpu) == ["eager"]
    assert len({spec.id for spec in gpu.PAPER}) == 3 + 20 - 2 + 9 + 2 + 30 + 6


def test_one_tensor_without_its_gradient_fails_the_check():
    """In bf16 it is less than rounding makes of the whole."""
    begun = {f"trained/{index}": torch.zeros(8) for index in range(16)}
    expected = {name: value + 1 for name, value in begun.items()}
    expected["trained/15"] = begun["trained/15"]  # what never moves is no fault
    assert pieces.changed(begun, expected, expected) == (0.0, 0.0)
    whole, worst = pieces.changed(begun, expected, expected | {"trained/3": torch.zeros(8)})
    _, like, alike = pieces.TOLERANCE["bf16"]
    assert whole < like
    assert worst > alike


@pytest.mark.slow
def test_a_wrong_engine_fails_the_check(monkeypatch, tmp_path):
    told = []
    one, pair = pieces.SMOKE
    make, load = pieces.engines_of, LeanEngine.load

    def found(name):
        rows = pieces.check(
            name, torch.device("cpu"), [one, pair], tmp_path, lambda **each: told.append(each)
        )
        return [row["good"] for row in rows]

    assert found("lean") == [True, True]
    assert len(told) == 2
    monkeypatch.setattr(LeanEngine, "load", lambda self, state: None)
    assert found("lean") == [False, False]  # it does not go on from where it is told to
    monkeypatch.setattr(LeanEngine, "load", load)

    def broken(name, check, precision, device):
        if name == "lean":  # it trains at another rate
            changed = [{"lr": 0.2}]
            check = pieces.Check(check.model, check.subset, check.batches, changed)
        if name == "fused":
            raise RuntimeError("a kernel\ndoes not compile")
        return make(name, check, precision, device)

    monkeypatch.setattr(pieces, "engines_of", broken)
    assert found("lean") == [False, False]
    assert found("fused") == [False] * 4
    assert told[-1]["partial"][-1]["error"] == "RuntimeError: a kernel"


def test_an_error_of_the_gpu_ends_the_trainings_of_a_process(monkeypatch, tmp_path):
    told, trained = {}, []

    def train(spec, runs, *, engine, **rest):
        trained.append(engine)
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(pieces, "train", train)
    spec = RunSpec(model="cifar_resnet_8_4", data="synthetic")
    rows = [{"engine": "fused", "subset": "bn", "precision": "fp32", "good": True}]
    options = {"device": "cpu", "avoid": [], "runs": tmp_path, "data_dir": None}
    with pytest.raises(RuntimeError, match="illegal memory"):
        pieces.train_until([spec], rows, math.inf, options, lambda **found: told.update(found))
    assert trained == ["fused"]
    assert told["broke"] == "fused"
    assert "illegal memory" in told["partial"][0]["status"]


def test_kernels_are_compiled_for_what_the_gpu_will_launch():
    def asked(images):
        """The batches that an engine on a GPU evaluates."""
        device = SimpleNamespace(type="cuda")
        made = SimpleNamespace(spec=gpu.PAPER[0], device=device, _pixels=lambda: 32**2)
        size = Batches._test_size(made)
        return {min(size, images - start) for start in range(0, images, size)}

    assert all(gpu_compile.at_once(images) == asked(images) for images in (*gpu.TESTED, 6000))
    assert len(pieces.synthetic().test.labels) == gpu.TESTED[0]
    jobs = gpu.jobs(smoke=False)
    cases = [job["case"] for job in jobs if job["what"] == "check"]
    assert {size for case in cases for size in case["batches"]} == {
        size for each in pieces.CHECKS for size in each.batches
    }


def test_too_few_repeats_are_a_part_of_a_result():
    told = {}
    with pytest.raises(TimeoutError, match="3 of 5 repeats"):
        pieces.enough("rows", [{"repeats": 3}], lambda **found: told.update(found))
    assert told == {"partial": "rows"}
    assert pieces.enough("rows", [{"repeats": 5}], pytest.fail) == "rows"


@pytest.mark.slow
def test_the_gpu_script_on_a_cpu(tmp_path):
    """All of it, its processes too; and again, from what it has packed."""
    first, second = tmp_path / "first", tmp_path / "second"
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path / "triton")}
    environment.pop("TRITON_INTERPRET", None)

    def run(folder, *more):
        command = [
            sys.executable, ROOT / "benchmarks" / "gpu.py", "--device", "cpu", "--smoke",
            "--limit", "600", "--runs", folder / "runs", "--out", folder / "gpu.json", "--pack",
            folder / "state.tar.gz", *more,
        ]  # fmt: skip
        folder.mkdir()
        subprocess.run(list(map(str, command)), env=environment, check=True)
        return json.loads((folder / "gpu.json").read_text())

    found = run(first)
    assert all("result" in piece for part in found.values() for piece in part.values()), found
    assert found["compile"]["kernels"]["result"]["rows"][0]["kernels"] > 3
    assert len(list((tmp_path / "triton").glob("*/*.cubin"))) > 3
    assert [row["status"] for row in found["runs"]["paper"]["result"]] == ["ok"]
    text = tables.gpu(first)
    assert "fused: 4 of 4" in text
    assert "| fused |" in text
    assert "| cifar_resnet_8_4 | bn | 0 | fused | ok |" in text
    again = run(second, "--unpack", first / "state.tar.gz")
    assert again["steps"] == found["steps"]
    assert again["runs"]["paper"]["result"] == found["runs"]["paper"]["result"]
