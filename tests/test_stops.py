"""Ctrl-C, SIGTERM and SIGHUP: one line, the signal's exit code, and everything to go on from."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gammabeta.cli import main
from gammabeta.stops import Stopped, as_ctrl_c
from gammabeta.store import RunFolder

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals"),
    pytest.mark.usefixtures("heard"),
]
ROOT = Path(__file__).parent.parent
TRAIN = ["train", "--data", "synthetic", "--model", "cifar_resnet_8_4", "--epochs", "2",
         "--subsample", "64", "--test-subsample", "32", "--batch-size", "32"]  # fmt: skip


@pytest.mark.parametrize("start", ["module", "script", "library"])
def test_ctrl_c_while_torch_is_imported(start, tmp_path):
    """A torch that takes for ever stands in for the real one, so that the moment is sure."""
    (tmp_path / "torch").mkdir()
    slow = "import pathlib, time\npathlib.Path(__file__).with_name('began').touch()\ntime.sleep(60)"
    (tmp_path / "torch" / "__init__.py").write_text(slow)
    script = tmp_path / "gammabeta"
    script.write_text("import sys\nfrom gammabeta.cli import main\nsys.exit(main())\n")
    words = {"module": ["-m", "gammabeta"], "script": [str(script)],
             "library": ["-c", "from gammabeta import train"]}[start]  # fmt: skip
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    child = subprocess.Popen(
        [sys.executable, *words, "models"], stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": paths},
    )  # fmt: skip
    with child:
        limit = time.monotonic() + 30
        while not (tmp_path / "torch" / "began").exists() and time.monotonic() < limit:
            time.sleep(0.02)
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=30)
    if start == "library":  # of somebody else's program: Python's own way
        assert "KeyboardInterrupt" in err
    else:
        assert (child.returncode, err) == (130, "\ngammabeta: stopped\n")


def _sends(number, monkeypatch):
    """The signal comes after the first epoch is down on the disk."""
    save = RunFolder.save_checkpoint

    def saved(folder, epoch, tensors):
        save(folder, epoch, tensors)
        os.kill(os.getpid(), number)

    monkeypatch.setattr(RunFolder, "save_checkpoint", saved)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_stops_a_run_as_ctrl_c_does(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    number = getattr(signal, name)
    assert main([*TRAIN, "--runs", "whole"]) == 0
    with monkeypatch.context() as patch:
        _sends(number, patch)
        assert main(TRAIN) == 128 + number
    err = capsys.readouterr().err
    assert err.endswith(
        "the same command again goes on from the last whole epoch\n\ngammabeta: stopped\n"
    )
    assert signal.getsignal(number) is signal.SIG_DFL
    [folder] = [RunFolder.open(path) for path in (tmp_path / "runs").iterdir()]
    assert (folder.status, folder.epochs_done) == ("stopped", 1)
    assert main(TRAIN) == 0
    metrics = [
        [{key: each for key, each in record.items() if "seconds" not in key} for record in
         map(json.loads, (tmp_path / runs / folder.id / "metrics.jsonl").read_text().splitlines())]
        for runs in ("runs", "whole")
    ]  # fmt: skip
    assert metrics[0] == metrics[1]


def test_who_ignores_sighup_goes_on(tmp_path, monkeypatch):
    """As under nohup."""
    monkeypatch.chdir(tmp_path)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        _sends(signal.SIGHUP, monkeypatch)
        assert main(TRAIN) == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_sighup_disturbs_nothing():
    """The terminal sends one and the shell another."""
    cleaned = []

    def work():
        try:
            os.kill(os.getpid(), signal.SIGHUP)
        finally:
            os.kill(os.getpid(), signal.SIGHUP)
            cleaned.append(1)

    with pytest.raises(Stopped) as raised, as_ctrl_c():
        work()
    assert (cleaned, raised.value.number) == ([1], signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


def test_somebody_elses_handler_is_left_alone():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
    try:
        with as_ctrl_c():
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [1]
