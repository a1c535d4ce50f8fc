"""Work in processes of its own: what comes back, and how it ends."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from gammabeta.jobs import in_processes


def work(piece: str) -> dict[str, str]:
    """The first answers at once, "dies" dies, the others go on for long."""
    path = Path(piece)
    path.touch()
    if path.name == "dies":
        os._exit(3)
    if not path.name.startswith("quick"):
        time.sleep(120)
    return {path.name: f"{torch.get_num_threads()} threads"}


def test_answers_come_back_and_a_death_is_noticed(tmp_path):
    pieces = [str(tmp_path / name) for name in ("quick1", "dies", "quick2")]
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = dict(in_processes(work, pieces, 2))
    finally:
        torch.set_num_threads(threads)
    assert found == {
        pieces[0]: {"quick1": "1 threads"}, pieces[1]: None, pieces[2]: {"quick2": "1 threads"}
    }  # fmt: skip


@pytest.mark.slow
def test_what_is_given_up_ends_and_begins_nothing(tmp_path):
    """As after Ctrl-C: the generator is closed where it waits."""
    pieces = [str(tmp_path / name) for name in ("quick", "b", "c", "d", "e", "f")]
    going = in_processes(work, pieces, 2)
    piece, answer = next(going)
    assert (piece, list(answer)) == (pieces[0], ["quick"])
    while not (tmp_path / "b").exists():
        time.sleep(0.05)
    started = time.monotonic()
    going.close()
    assert time.monotonic() - started < 25  # stopped, not waited for, and not killed for it
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "quick"]


def linger(piece: str) -> dict[str, str]:
    """Works on until it is stopped as Ctrl-C stops, and says so."""
    path = Path(piece)
    path.touch()
    try:
        time.sleep(120)
    except KeyboardInterrupt:
        path.with_suffix(".stopped").touch()
        raise
    return {}


def parent(folder: str) -> None:
    """What the test below kills."""
    try:
        list(in_processes(linger, [f"{folder}/a", f"{folder}/b"], 2))
    except KeyboardInterrupt:
        Path(folder, "heard").touch()
        raise


@pytest.mark.skipif(os.name == "nt", reason="Windows has neither signal")
@pytest.mark.parametrize(
    "kind",
    [*(pytest.param(each, marks=pytest.mark.slow) for each in ("SIGTERM", "SIGHUP")), "SIGKILL"],
)
@pytest.mark.usefixtures("heard")
def test_no_process_outlives_its_parent(tmp_path, kind):
    """SIGTERM and SIGHUP are as Ctrl-C to the parent; killed outright, its children notice by
    themselves. With children that went on this would time out."""
    code = f"import test_jobs; test_jobs.parent({str(tmp_path)!r})"
    paths = [str(Path(__file__).parent), *sys.path]
    started = subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.DEVNULL, start_new_session=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )  # fmt: skip
    try:
        _wait_for(tmp_path / "a", tmp_path / "b")
        started.send_signal(getattr(signal, kind))
        started.wait(60)
        _wait_for(tmp_path / "a.stopped", tmp_path / "b.stopped")
        assert (tmp_path / "heard").exists() == (kind != "SIGKILL")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)


def starting(folder: str) -> None:
    """Ctrl-C to all of them while the two import what they need."""

    def interrupt() -> None:
        while len(multiprocessing.active_children()) < 2:
            time.sleep(0.01)
        time.sleep(0.3)
        os.killpg(0, signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        list(in_processes(linger, [f"{folder}/a", f"{folder}/b"], 2))


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no process groups to interrupt")
def test_ctrl_c_while_processes_start_prints_nothing(tmp_path):
    code = f"import test_jobs; test_jobs.starting({str(tmp_path)!r})"
    paths = [str(Path(__file__).parent), *sys.path]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, start_new_session=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)}, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []  # no work began


def _wait_for(*paths: Path) -> None:
    limit = time.monotonic() + 90  # of which a busy machine needs most to import torch
    while not all(path.exists() for path in paths):
        assert time.monotonic() < limit, f"only {[path.name for path in paths if path.exists()]}"
        time.sleep(0.1)


def test_signals_are_as_before_once_the_jobs_are_done(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    assert dict(in_processes(work, [str(tmp_path / "quick")], 1)) != {}
    assert signal.getsignal(signal.SIGTERM) is before
