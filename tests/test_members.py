"""Runs that train in step are what they would be alone, each in a folder of its own."""

import dataclasses
import os
import signal
import time

import numpy as np
import pytest
import torch

from gammabeta import InputError, RunError, RunSpec, load_run, train, train_members
from gammabeta.data import Split, load_dataset
from gammabeta.engine.fused import FusedEngine
from gammabeta.run import Start
from gammabeta.store import RunFolder
from gammabeta.train import Epoch, Step

SPEC = RunSpec(
    model="cifar_resnet_8_4",
    data="synthetic",
    epochs=3,
    batch_size=32,
    subsample=70,
    crop_padding=2,
)
ON = {"engine": "fused", "device": "cpu"}
RATES = [SPEC.replace(lr=lr) for lr in (0.1, 0.01, 0.3)]
MIXED = [SPEC, SPEC.replace(seed=1, norm_init="ones"), SPEC.replace(seed=2, random_labels=0.5)]


@pytest.fixture(autouse=True)
def _quick(quick, monkeypatch):
    """Few test images too: three epochs in half a second."""
    whole = load_dataset("synthetic")
    test = Split(whole.test.images[:50], whole.test.labels[:50])
    data = dataclasses.replace(whole, test=test)
    monkeypatch.setattr("gammabeta.build.load_dataset", lambda *_: data)


def together(specs, folder, **keywords):
    return train_members(specs, folder, **ON, **keywords)


def assert_equal(one, two):
    """Up to rounding, and the clock."""
    assert (one.id, one.spec, one.folder.inputs) == (two.id, two.spec, two.folder.inputs)
    assert len(one.metrics) == len(two.metrics) == one.spec.epochs
    for ours, theirs in zip([*one.metrics, one.result], [*two.metrics, two.result], strict=True):
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            if not key.endswith("seconds"):
                assert theirs[key] == (
                    value if key == "status" else pytest.approx(value, rel=1e-4)
                ), key
    states = [run.folder.load_checkpoint()[0].tensors for run in (one, two)]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=1e-3, atol=1e-4)
    files = [
        {str(path.relative_to(run.folder.path)) for path in run.folder.path.rglob("*")}
        for run in (one, two)
    ]
    assert files[0] == files[1]


@pytest.mark.parametrize("specs", [RATES, MIXED], ids=["one backbone", "three"])
def test_members_equal_runs_made_alone(tmp_path, specs):
    runs = together(specs, tmp_path / "together")
    assert [run.spec for run in runs] == specs
    assert len({run.accuracy for run in runs}) > 1
    for run in runs:
        assert_equal(run, train(run.spec, tmp_path / "alone", **ON))


def test_what_is_said_while_members_train(tmp_path):
    events = []
    runs = together(RATES, tmp_path, listen=events.append)
    starts = [event for event in events if isinstance(event, Start)]
    assert [start.run.spec for start in starts] == RATES
    assert {start.team for start in starts} == {tuple(RATES)}
    assert {start.members for start in starts} == {3}
    steps = [event for event in events if isinstance(event, Step)]
    assert [step.done for step in steps] == list(range(1, 10))  # of all of them, once
    epochs = [event for event in events if isinstance(event, Epoch)]
    assert [event.run for event in epochs] == 3 * [run.id for run in runs]
    assert [event.record for event in epochs[::3]] == runs[0].metrics


def test_a_members_seconds_are_its_share(tmp_path):
    started = time.perf_counter()
    runs = together(RATES, tmp_path)
    wall = time.perf_counter() - started
    for run in runs:
        assert [session["members"] for session in run.folder.env["sessions"]] == [3]
        assert run.result["seconds"] == pytest.approx(
            sum(record["seconds"] for record in run.metrics), abs=0.002
        )
    assert len({str([record["seconds"] for record in run.metrics]) for run in runs}) == 1
    spent = sum(r["seconds"] + r["evaluation_seconds"] for run in runs for r in run.metrics)
    assert 0 < spent < wall  # the rest is building, timing and writing
    alone = train(SPEC.replace(seed=5), tmp_path, **ON)
    assert alone.folder.env["sessions"][0]["members"] == 1


def stop_at(epoch, place=0):
    """A listener that presses Ctrl-C after so many members have ended this epoch."""
    seen = []

    def listen(event):
        if isinstance(event, Epoch) and event.record["epoch"] == epoch:
            seen.append(event)
            if len(seen) > place:
                raise KeyboardInterrupt

    return listen


@pytest.mark.parametrize("place", [0, 2], ids=["one is ahead", "all as far"])
def test_stopped_and_resumed_is_as_never_stopped(tmp_path, place):
    whole = together(MIXED, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        together(MIXED, tmp_path / "parts", listen=stop_at(2, place))
    folders = [RunFolder.open(tmp_path / "parts" / spec.id) for spec in MIXED]
    assert [folder.status for folder in folders] == ["stopped"] * 3
    assert [folder.epochs_done for folder in folders] == ([2, 1, 1] if place == 0 else [2, 2, 2])
    starts = []
    parts = together(
        MIXED, tmp_path / "parts", listen=lambda e: starts.append(e) if isinstance(e, Start) else 0
    )
    expected = [(2, 1), (1, 2), (1, 2)] if place == 0 else [(2, 3)] * 3
    assert [(start.epoch, start.members) for start in starts] == expected
    assert starts[0].notes == ("resuming after epoch 2",)
    for one, two in zip(whole, parts, strict=True):
        assert_equal(one, two)


def test_killed_at_random_moments_is_as_never_killed(tmp_path):
    started = time.perf_counter()
    whole = together(MIXED, tmp_path / "whole")
    length = time.perf_counter() - started
    seed = time.time_ns()
    print(f"random moments of seed {seed}")  # shown if this fails
    draw = np.random.default_rng(seed)
    for _ in range(5):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                together(MIXED, tmp_path / "killed")
                code = 0
            finally:
                os._exit(code)
        time.sleep(draw.uniform(0.1, 0.9) * length)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
    for one, two in zip(whole, together(MIXED, tmp_path / "killed"), strict=True):
        assert_equal(one, two)


WILD = SPEC.replace(lr=1e30, trainable="bn+output")  # of all, only the fused engine trains these


def test_a_member_that_fails_does_not_stop_the_others(tmp_path):
    specs = [WILD.replace(lr=0.1), WILD, WILD.replace(lr=0.01)]
    with pytest.raises(RunError, match=r"loss became .* try a smaller --lr"):
        together(specs, tmp_path / "together")
    runs = [load_run(tmp_path / "together" / spec.id) for spec in specs]
    assert [run.result["status"] for run in runs] == ["ok", "failed", "ok"]
    assert "try a smaller" in runs[1].result["error"]
    for run in (runs[0], runs[2]):
        assert_equal(run, train(run.spec, tmp_path / "alone", **ON))
    events = []
    with pytest.raises(RunError, match="try a smaller"):  # it alone is tried again
        together(specs, tmp_path / "together", listen=events.append)
    assert {event.run.spec for event in events if isinstance(event, Start)} == {WILD}


def test_what_has_finished_is_not_trained_again(tmp_path):
    first = train(RATES[1], tmp_path, **ON)
    starts = []
    runs = together(
        RATES, tmp_path, listen=lambda e: starts.append(e) if isinstance(e, Start) else 0
    )
    assert [start.run.spec for start in starts] == [RATES[0], RATES[2]]
    assert runs[1].metrics == first.metrics
    starts.clear()
    again = together(RATES, tmp_path, listen=starts.append)
    assert starts == []
    assert [run.result for run in again] == [run.result for run in runs]


def test_a_member_that_another_process_trains_does_not_stop_the_others(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        together(RATES, tmp_path, listen=stop_at(1))
    with (
        RunFolder.open(tmp_path / RATES[1].id).lock(),
        pytest.raises(RunError, match=f"run {RATES[1].id} is being trained by process"),
    ):
        together(RATES, tmp_path)
    found = [load_run(tmp_path / spec.id).folder.status for spec in RATES]
    assert found == ["ok", "stopped", "ok"]


def test_a_member_with_a_damaged_folder_does_not_stop_the_others(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        together(RATES, tmp_path, listen=stop_at(2, 2))
    hurt = tmp_path / RATES[0].id
    (hurt / "metrics.jsonl").write_text("garbage\n")
    (tmp_path / RATES[1].id / "env.json").write_text("garbage")
    with pytest.raises(RunError, match="line 1 is damaged"):
        together(RATES, tmp_path)
    found = [load_run(tmp_path / spec.id).folder.status for spec in RATES]
    assert found == ["stopped", "stopped", "ok"]


def test_a_step_that_fails_fails_for_every_member(tmp_path, monkeypatch):
    real, steps = FusedEngine.step, []

    def step(self, start, stop, factor):
        steps.append(self)
        if len(steps) == 20:  # in the second epoch
            monkeypatch.setattr(self.team.program, "step", broken)
        real(self, start, stop, factor)

    def broken(*arguments):
        monkeypatch.undo()  # only this once: who went on would have missed a step
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(FusedEngine, "step", step)
        with pytest.raises(MemoryError):
            together(RATES, tmp_path / "hurt")
    runs = [load_run(tmp_path / "hurt" / spec.id) for spec in RATES]
    assert [(run.result["status"], len(run.metrics)) for run in runs] == [("failed", 1)] * 3


@pytest.mark.parametrize("engine", ["eager", "lean"])
def test_only_the_fused_engine_trains_members(tmp_path, engine):
    with pytest.raises(InputError, match=f"this would be {engine} .as asked.: write fused") as bad:
        train_members(RATES, tmp_path / "runs", engine=engine, device="cpu")
    assert bad.value.about == "engine"
    with pytest.raises(InputError, match="members cannot differ in epochs"):
        together([SPEC, SPEC.replace(epochs=2)], tmp_path / "runs")
    assert list(tmp_path.iterdir()) == []
