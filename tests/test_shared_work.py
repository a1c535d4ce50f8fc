"""Two equal commands at once: each leaves to the other what that is training, and does the rest."""

import contextlib
import pickle
from pathlib import Path

import pytest
from few import SPEC, few_images
from several import flags
from stores import write_run

from gammabeta import RunError, grid, load_run, sweep, train, tune
from gammabeta.cli import main
from gammabeta.errors import HeldError
from gammabeta.run import Ended
from gammabeta.store import RunFolder

CPU = {"engine": "eager", "device": "cpu"}
SPECS = grid(SPEC.replace(epochs=1), {"seed": range(3)})


@pytest.fixture(autouse=True)
def _quick(quick, monkeypatch, tmp_path):
    few_images(monkeypatch)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def other():
    """Another process has begun the second run and trains it; close() ends that."""
    lock = contextlib.ExitStack()
    lock.enter_context(write_run(Path("runs"), SPECS[1], None).lock())
    with lock:
        yield lock


def test_the_rest_is_trained_and_what_is_left_is_said(other):
    events = []
    with pytest.raises(RunError) as raised:
        sweep(SPECS, **CPU, listen=events.append)
    ended = [event for event in events if isinstance(event, Ended)]
    assert [(each.spec, each.error) for each in ended] == [(spec, None) for spec in SPECS]
    assert [each.left_to is not None for each in ended] == [False, True, False]
    by = ended[1].left_to
    assert by.startswith("process ")
    assert str(raised.value) == (
        f"1 of 3 runs left to {by}, which is training {SPECS[1].id}: when it has ended, "
        "the same command again has them all"
    )
    assert [load_run(spec.id, "runs").folder.status for spec in SPECS] == ["ok", "running", "ok"]


@pytest.mark.parametrize("end", ["stopped", "finished"])
def test_what_the_other_leaves_or_finishes_is_no_failure(other, end):
    """While the third run trains here, the other process stops, or is done with the second."""
    events = []

    def listen(event):
        events.append(event)
        if isinstance(event, Ended) and event.spec == SPECS[2]:
            other.close()
            if end == "finished":
                RunFolder.open("runs/" + SPECS[1].id).remove()
                train(SPECS[1], **CPU)

    if end == "stopped":
        (RunFolder.open("runs/" + SPECS[1].id).path / "inputs.json").write_bytes(inputs())
    runs = sweep(SPECS, **CPU, listen=listen)
    assert [run.folder.status for run in runs] == ["ok"] * 3
    ended = [event for event in events if isinstance(event, Ended)]
    assert [each.spec for each in ended] == [*SPECS, SPECS[1]]
    assert (ended[-1].error, ended[-1].left_to) == (None, None)


def inputs():
    """What the second run would have been built from."""
    run = train(SPECS[1], "elsewhere", **CPU)
    return (run.folder.path / "inputs.json").read_bytes()


def test_failures_and_what_is_left_are_told_apart(other):
    broken = SPECS[0].replace(lr=1e30, trainable="all")
    with pytest.raises(RunError) as raised:
        sweep([broken, SPECS[1]], **CPU)
    told = str(raised.value).split("; ")
    assert told[0].startswith(f"1 of 2 runs failed: {broken.id} (the training loss became")
    assert told[1].startswith("1 of 2 runs left to process ")


def test_the_command_says_so_in_a_line_and_shows_the_rest(other, capsys):
    spec, words = SPECS[1], flags(SPECS[0])
    assert main(["train", *words, "--seeds", "0-2", "--engine", "eager", "--device", "cpu"]) == 1
    out, err = capsys.readouterr()
    assert f"run {spec.id}, {spec.model}, bn, seed 1: left to process " in err
    assert "failed" not in err
    assert err.splitlines()[-1].startswith("gammabeta: 1 of 3 runs left to process ")
    assert [line.split()[1] for line in out.splitlines()[2:3]] == ["running"]


def test_tune_chooses_among_all_rates_or_not_at_all(other, monkeypatch):
    """A rate that another process is trying is none to leave out."""
    found = tune.plan(SPECS[1], ["bn"], [0.01, 0.1], 0.25)
    held = found[0][1]
    with (
        write_run(Path("runs"), held, None).lock(),
        pytest.raises(RunError, match="1 of 2 runs left to process"),
    ):
        tune.tune(SPECS[1], ["bn"], [0.01, 0.1], validation=0.25, **CPU)


def test_who_holds_it_travels_between_processes():
    error = pickle.loads(pickle.dumps(HeldError("run 1 is being trained", "process 2 on a")))
    assert (str(error), error.by) == ("run 1 is being trained", "process 2 on a")
