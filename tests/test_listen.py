"""What is said while a run trains: nothing by default, lines with `progress`, a bar or lines in the
command line."""

import io
import json
import re
import sys

import pytest
from stores import write_run

import gammabeta
from gammabeta import RunSpec, listen
from gammabeta.listen import Phases, Portions
from gammabeta.run import Start

SPEC = RunSpec(
    model="cifar_resnet_8_4", data="synthetic", epochs=3, batch_size=32, subsample=64, seed=2
)


def test_training_from_python_is_silent_unless_told(tmp_path, capsys):
    gammabeta.train(SPEC, tmp_path)
    assert capsys.readouterr() == ("", "")


def test_progress_says_what_begins_and_how_each_epoch_ended(tmp_path, capsys):
    run = gammabeta.train(SPEC, tmp_path, listen=gammabeta.progress)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0] == f"run {run.id}: cifar_resnet_8_4, training bn, on synthetic"
    assert "2 steps an epoch, 3 epochs: about" in lines[-4]
    for number, (line, record) in enumerate(zip(lines[-3:], run.metrics, strict=True), start=1):
        train, test = record["train_accuracy"], record["test_accuracy"]
        assert line.startswith(f"epoch {number}: train {train:.2%}, test {test:.2%}, ")
    gammabeta.train(SPEC, tmp_path, listen=gammabeta.progress)
    assert capsys.readouterr().err == ""  # there was nothing to do


def test_progress_tells_notes(tmp_path, capsys):
    def stop(event):
        if getattr(event, "record", {}).get("epoch") == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gammabeta.train(SPEC, tmp_path, listen=stop)
    run = gammabeta.train(SPEC, tmp_path, listen=gammabeta.progress)
    err = capsys.readouterr().err
    assert "2 steps an epoch, 2 epochs: about" in err
    assert "note: resuming after epoch 1\nepoch 2: train" in err
    assert json.loads((run.folder.path / "result.json").read_text())["epoch"] == 3


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_each_phase_is_a_line_with_its_time(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Phases() as say:
        say("drawing")
        assert sys.stderr.getvalue() == "drawing ..."
        say("checking")
    lines = sys.stderr.getvalue().splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["drawing", "checking"]
    assert all(re.fullmatch(r"\w+ \.\.\. \d+\.\d s", line) for line in lines)


def test_an_error_begins_a_line_of_its_own(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())

    def fail():
        with Phases() as say:
            say("drawing")
            raise ValueError

    with pytest.raises(ValueError):
        fail()
    assert sys.stderr.getvalue() == "drawing ...\n"


def test_a_pipe_hears_of_a_phase_only_after_a_while(monkeypatch, capsys):
    with Phases() as say:
        say("drawing")
        monkeypatch.setattr(listen, "PLAIN_SECONDS", 0)
        say("checking")
        monkeypatch.setattr(listen, "PLAIN_SECONDS", 30)
        say("timing")
    assert capsys.readouterr() == ("", "checking ...\n")


def test_after_ctrl_c_epochs_of_other_processes_count(tmp_path, capsys):
    """Of jobs only their ends are heard: whether an epoch is kept, the run folder tells."""
    told = []
    for kept in (False, True):
        if kept:
            write_run(tmp_path, SPEC, None)  # with two epochs behind it
        with (
            pytest.raises(KeyboardInterrupt),
            listen.TrainDisplay(2, folders=[tmp_path / "another", tmp_path / SPEC.id]),
        ):
            raise KeyboardInterrupt
        told.append(capsys.readouterr().err.strip())
    assert told == [
        "no epoch had ended: the same command begins again",
        "the same command again goes on from the last whole epoch",
    ]


def test_portions_tell_what_begins_and_now_and_then_how_far_it_is(monkeypatch, capsys):
    times = iter((0, 5, 15, 40, 50, 80, 80, 100))
    monkeypatch.setattr(listen.time, "perf_counter", lambda: next(times))
    tell = Portions()
    for what, *shares in (("clamp", 0, 0.1, 0.25, 0.3, 1), ("activity", 0, 0.5)):
        for share in shares:
            tell(what, share)
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines() == [
        "clamp ...", "clamp, 25% done, 1 min 45 s left", "activity ...",
    ]  # fmt: skip


def test_what_is_expected_counts_evaluation_as_forward_alone(tmp_path, capsys):
    heard = []
    for part in ("none", "bn", "all"):
        gammabeta.train(SPEC.replace(trainable=part), tmp_path, listen=heard.append)
    starts = [each for each in heard if isinstance(each, Start)]
    tested = len(starts[0].data.test.labels)
    forward = [tested / 64 * part for part in (1, 1 / 2, 1 / 3)]
    for start, wanted in zip(starts, forward, strict=True):
        share = listen.expected_seconds(start) / (start.step_seconds * 2 * 3) - 1
        assert share == pytest.approx(wanted, rel=0.05)  # the first layer's input has no gradient


def test_a_part_that_only_a_deeper_network_has_trains_through_every_listener(tmp_path, capsys):
    spec = SPEC.replace(model="cifar_resnet_20_4", trainable=r"name:blocks\.8\..*", epochs=1)
    gammabeta.train(spec, tmp_path / "one", listen=gammabeta.progress)
    with listen.TrainDisplay() as display:
        gammabeta.train(spec, tmp_path / "other", listen=display)
    told = capsys.readouterr().err
    assert told.count("2 steps an epoch, 1 epoch: about") == 2
