"""Runs that train in step are what they would be alone, each in a folder of its own."""

import os
import signal
import time

import numpy as np
import pytest
from few import ON, SPEC, assert_equal, few_images, stop_at

from gammabeta import InputError, RunError, load_run, progress, train, train_members
from gammabeta.engine.fused import FusedEngine
from gammabeta.run import Start
from gammabeta.store import RunFolder
from gammabeta.train import Epoch, Step

RATES = [SPEC.replace(lr=lr) for lr in (0.1, 0.01, 0.3)]
MIXED = [SPEC, SPEC.replace(seed=1, norm_init="ones"), SPEC.replace(seed=2, random_labels=0.5)]


@pytest.fixture(autouse=True)
def _quick(quick, monkeypatch):
    few_images(monkeypatch)


def together(specs, folder, **keywords):
    return train_members(specs, folder, **ON, **keywords)


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


def test_progress_says_whose_epoch_it_is(tmp_path, capsys):
    first, second, _ = together(RATES, tmp_path, listen=progress)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"run {first.id}: cifar_resnet_8_4, training bn, on synthetic, lr=0.1"
    assert f"run {second.id}: lr=0.01" in lines
    told = [line for line in lines if line.startswith("epoch 2 of ")]
    assert told[1].startswith(f"epoch 2 of {second.id}: train ")
    assert f"test {second.metrics[1]['test_accuracy']:.2%}, " in told[1]
    assert len(told) == 3


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


@pytest.mark.parametrize("place", [0, pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_member_that_fails_does_not_stop_the_others(tmp_path, place):
    specs = [WILD.replace(lr=0.1), WILD.replace(lr=0.01)]
    specs.insert(place, WILD)
    with pytest.raises(RunError, match=r"loss became .* try a smaller learning rate"):
        together(specs, tmp_path / "together")
    runs = [load_run(tmp_path / "together" / spec.id) for spec in specs]
    failed = runs.pop(place)
    assert failed.result["status"] == "failed"
    assert "try a smaller" in failed.result["error"]
    for run in runs:
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
