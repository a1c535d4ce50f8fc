"""The store on a disk that fails: full at any step, or killed there."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from run_folders import INPUTS, SPEC, files, loaded, names, state

from gammabeta.disk import write_atomically
from gammabeta.errors import RunError
from gammabeta.store import RunFolder, list_runs

pytestmark = pytest.mark.usefixtures("quick")


class Killed(BaseException):
    """The process is dead: nothing of it reaches the disk any more."""


class Disk:
    """Fails from the `step`-th change of the disk on.

    once: that call has no space. full: nothing that needs space works any more. kill: no call at
    all does, clean-up included.
    """

    NEED_SPACE = ("mkdir", "open", "write", "fsync", "replace")
    OTHERS = ("unlink", "rmdir", "ftruncate", "rename")

    def __init__(self, monkeypatch: pytest.MonkeyPatch, mode: str, step: int) -> None:
        self.mode, self.step, self.calls = mode, step, 0
        for name in (*self.NEED_SPACE, *self.OTHERS):
            monkeypatch.setattr(os, name, self._wrap(name, getattr(os, name)))

    def _wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            changes = name in self.NEED_SPACE
            changes &= name != "open" or bool(arguments[1] & os.O_CREAT)
            changes &= name != "mkdir" or not Path(arguments[0]).exists()
            if changes:
                self.calls += 1
                if self.calls == self.step or (self.calls > self.step and self.mode == "full"):
                    if self.mode == "kill":
                        raise Killed
                    raise OSError(errno.ENOSPC, "No space left on device")
            if self.mode == "kill" and self.calls >= self.step:
                raise Killed
            return real(*arguments, **options)

        return call


def failures(
    monkeypatch: pytest.MonkeyPatch, mode: str, action: Callable[[int], object]
) -> Iterator[BaseException]:
    """Run `action(step)` with a failure at step 1, 2, ... until none is left; yield each error."""
    for step in range(1, 100):
        with monkeypatch.context() as patch:
            disk = Disk(patch, mode, step)
            try:
                action(step)
            except (RunError, Killed) as raised:
                error: BaseException | None = raised
            else:
                error = None
        if error is None:
            assert step > 2, "nothing was counted"
            assert disk.calls == step - 1, "a failure went unnoticed"
            return
        yield error
    raise AssertionError("never gets through")


MODES = pytest.mark.parametrize("mode", ["once", "full", "kill"])


@MODES
def test_failing_checkpoint_leaves_the_previous(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    run.save_checkpoint(1, state(1))
    steps = 0
    for error in failures(monkeypatch, mode, lambda _: run.save_checkpoint(2, state(2))):
        steps += 1
        assert loaded(run) in [(1, 1), (2, 2)]
        if mode != "kill":
            assert "No space left on device" in str(error)
            assert "the last checkpoint is intact" in str(error)
            assert "\n" not in str(error)
            assert not [name for name in files(run.path) if "/." in f"/{name}"]
        if not (run.path / "checkpoint" / "2").exists():
            assert loaded(run) == (1, 1)
        shutil.rmtree(run.path / "checkpoint" / "2", ignore_errors=True)
    assert steps >= 12  # mkdir x2, open+write+fsync x3, fsync x3, replace x2, less what is merged
    assert loaded(run) == (2, 2)
    assert names(run.path / "checkpoint") == ["1", "2"]  # killed leftovers are swept


@MODES
def test_failing_replacement_of_the_only_checkpoint(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    run.save_checkpoint(3, state(1))
    values = [1]

    def replace(step: int) -> None:
        values.append(step + 1)
        run.save_checkpoint(3, state(step + 1))

    for _ in failures(monkeypatch, mode, replace):
        epoch, value = loaded(run)
        assert epoch == 3
        assert value in values
        if mode == "once":  # put back under its own name
            assert (run.path / "checkpoint" / "3").exists()
    assert loaded(run) == (3, values[-1])
    assert names(run.path / "checkpoint") == ["3"]


@MODES
def test_failing_create_leaves_no_half_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    root = tmp_path / "deep" / "runs"

    def create(_: int) -> None:
        RunFolder.create(root, "abc", SPEC, INPUTS)

    for error in failures(monkeypatch, mode, create):
        if (root / "abc").exists():  # only the last flush failed: it is complete
            assert RunFolder.open(root / "abc").inputs == INPUTS
        elif mode == "kill":
            assert list_runs(root) == []
        else:
            assert "No space left on device" in str(error)
            assert names(tmp_path) == []
        shutil.rmtree(tmp_path / "deep", ignore_errors=True)
    assert [each.id for each in list_runs(root)] == ["abc"]


@MODES
@pytest.mark.parametrize("what", ["session", "result", "metrics", "truncate"])
def test_failing_write_leaves_the_earlier_state(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, mode: str, what: str
) -> None:
    run.record_session({"n": 0})
    run.append_metrics({"epoch": 1})
    run.append_metrics({"epoch": 2})
    before = files(run.path)
    actions: dict[str, Callable[[int], None]] = {
        "session": lambda step: run.record_session({"n": step}),
        "result": lambda step: run.write_result({"status": "ok"}),
        "metrics": lambda step: run.append_metrics({"epoch": 3}),
        "truncate": lambda step: run.truncate_metrics(1),
    }
    for _ in failures(monkeypatch, mode, actions[what]):
        assert run.env["sessions"][0] == {"n": 0}
        assert [record["epoch"] for record in run.metrics()] in ([1], [1, 2], [1, 2, 3])
        assert run.result in (None, {"status": "ok"})
        if mode != "kill":
            assert set(files(run.path)) - {"result.json"} == set(before)
        if what == "truncate" and len(run.metrics()) == 1:
            run.append_metrics({"epoch": 2})
        if what == "metrics":
            run.truncate_metrics(2)
    expected = {"metrics": [1, 2, 3], "truncate": [1]}.get(what, [1, 2])
    assert [record["epoch"] for record in run.metrics()] == expected


def test_everything_is_flushed_before_it_is_pointed_to(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.save_checkpoint(1, state(1))
    opened: dict[int, str] = {}
    log: list[str] = []
    real_open, real_replace = os.open, os.replace

    def spy_open(path: Path, *arguments: Any, **options: Any) -> int:
        descriptor = real_open(path, *arguments, **options)
        opened[descriptor] = str(path).removeprefix(f"{run.path}").replace(f"-{os.getpid()}", "")
        return descriptor

    def spy_replace(source: Path, target: Path) -> None:
        log.append(f"rename {str(target).removeprefix(str(run.path))}")
        real_replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", spy_open)
        patch.setattr(os, "replace", spy_replace)
        patch.setattr(os, "fsync", lambda descriptor: log.append(f"flush {opened[descriptor]}"))
        run.save_checkpoint(2, state(2))
        run.append_metrics({"epoch": 1})
        run.write_result({"status": "ok"})
    assert log == [
        "flush /checkpoint/.tmp-2/state.safetensors",
        "flush /checkpoint/.tmp-2/SHA256SUMS",
        "flush /checkpoint/.tmp-2",
        "rename /checkpoint/2",
        "flush /checkpoint",
        "flush /.tmp-LAST",
        "rename /LAST",
        "flush ",
        "flush ",  # metrics.jsonl is new
        "flush /metrics.jsonl",
        "flush /.tmp-result.json",
        "rename /result.json",
        "flush ",
    ]


def test_short_writes_are_finished(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:7]))
        run.save_checkpoint(1, state(1))
        run.append_metrics({"epoch": 1, "loss": 0.123456789})
    assert loaded(run) == (1, 1)
    assert run.metrics() == [{"epoch": 1, "loss": 0.123456789}]


def test_an_interrupt_leaves_no_temporary_file(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    before = files(run.path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupt)
        for action in (
            lambda: run.write_result({"status": "ok"}),
            lambda: run.save_checkpoint(1, state(1)),
            lambda: RunFolder.create(run.path.parent, "other", SPEC, INPUTS),
        ):
            with pytest.raises(KeyboardInterrupt):
                action()
    assert files(run.path) == before
    assert names(run.path.parent) == [run.id]


def test_a_write_that_fails_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    for _ in failures(monkeypatch, "once", lambda _: write_atomically(path, b"new")):
        assert path.read_bytes() in (b"old", b"new")
        assert names(tmp_path) == ["file"]
        path.write_bytes(b"old")
    assert path.read_bytes() == b"new"
