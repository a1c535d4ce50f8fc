"""The run store against kills, full disks, damaged files, other processes and other folders."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gammabeta import checkpoint as checkpoint_module
from gammabeta.disk import write_atomically
from gammabeta.errors import InputError, RunError
from gammabeta.store import FORMAT, Checkpoint, RunFolder, find_run, list_runs

SPEC = {"format": FORMAT, "lr": 0.1, "model": "m"}
INPUTS = {"data": {"sha256": "ab"}}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flush nothing: hundreds of flushes take long on a busy disk. What is flushed, and when, is a
    test of its own."""
    monkeypatch.setattr(os, "fsync", os.fstat)  # still fails for what is not open


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "runs", "abc123", SPEC, INPUTS)


def state(value: float) -> dict[str, torch.Tensor]:
    return {"trained/bn.weight": torch.full((3,), value), "step": torch.tensor(int(value))}


def loaded(run: RunFolder) -> tuple[int, float]:
    """(epoch, value) of the checkpoint that loads, having checked all of it."""
    found, _ = run.load_checkpoint()
    assert found is not None
    value = found.tensors["step"].item()
    assert torch.equal(found.tensors["trained/bn.weight"], torch.full((3,), float(value)))
    return found.epoch, value


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def status(run: RunFolder) -> str:
    return run.status


def one_line(raised: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(raised.value)
    assert text
    assert "\n" not in text
    return text


# --- a disk that fails -------------------------------------------------------------------------


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


# --- checkpoints -------------------------------------------------------------------------------

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32]
DTYPES += [torch.int16, torch.int8, torch.uint8, torch.bool]
NAMES = st.text(st.sampled_from('abé.0/_- "\\\n'), max_size=8) | st.sampled_from(
    ["trained/blocks.0.conv1.weight", "../..", "optimizer/0/momentum_buffer"]
)


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    shape = draw(st.lists(st.integers(0, 3), max_size=4))
    seed = draw(st.integers(0, 1000))
    numbers = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 100
    value = numbers.to(draw(st.sampled_from(DTYPES)))
    return value.t() if len(shape) == 2 else value


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(values=st.dictionaries(NAMES, tensors(), max_size=5))
def test_tensors_come_back_equal(run: RunFolder, values: dict[str, torch.Tensor]) -> None:
    run.save_checkpoint(1, values)
    found, notes = run.load_checkpoint()
    assert notes == []
    assert found is not None
    assert list(found.tensors) == sorted(values)
    for name, value in values.items():
        assert found.tensors[name].dtype == value.dtype
        assert found.tensors[name].shape == value.shape
        assert torch.equal(found.tensors[name], value)


def test_nan_views_tied_and_trained_tensors_are_kept(run: RunFolder) -> None:
    base = torch.tensor([[1.0, float("nan")], [float("inf"), -0.0]], requires_grad=True)
    values = {"a": base, "b": base, "row": base[1], "column": base[:, 0].expand(3, 2)}
    run.save_checkpoint(0, values)
    found, _ = run.load_checkpoint()
    assert found == Checkpoint(0, found.tensors if found else {})
    for name, value in values.items():
        assert found.tensors[name].numpy().tobytes() == value.detach().numpy().tobytes()
        found.tensors[name].add_(1)  # own, writable memory


def test_same_tensors_same_bytes(run: RunFolder) -> None:
    names = [f"t{number}" for number in range(9)]
    found = set()
    for order in (names, names[::-1]):
        run.save_checkpoint(1, {name: torch.zeros(2) for name in order})
        found.add((run.path / "checkpoint/1/state.safetensors").read_bytes())
    (data,) = found
    metadata = b'{"__metadata__":{"epoch":"1","format":"pt","gammabeta_format":"1","run":"abc123"},'
    assert data[8:].startswith(metadata)


def test_the_newest_two_are_kept(run: RunFolder) -> None:
    assert run.load_checkpoint() == (None, [])
    assert run.epochs_done == 0
    for process in (os.getpid(), 999999):  # left by kills; process numbers come again
        (run.path / "checkpoint" / f".tmp-1-{process}").mkdir(parents=True)
    for epoch in (1, 2, 10, 9, 11):  # 10 is given up when 9 is saved after it
        run.save_checkpoint(epoch, state(epoch))
        assert loaded(run) == (epoch, epoch)
        assert run.epochs_done == epoch
        assert (run.path / "LAST").read_text() == f"{epoch}\n"
    assert names(run.path / "checkpoint") == ["11", "9"]


def test_refused_checkpoints(run: RunFolder) -> None:
    with pytest.raises(InputError, match="0 or more"):
        run.save_checkpoint(-1, {})
    with pytest.raises(InputError, match="rename that tensor"):
        run.save_checkpoint(1, {"__metadata__": torch.zeros(1)})
    assert not (run.path / "checkpoint").exists()


def two(run: RunFolder) -> Path:
    """Checkpoints 11 and 12 in the run; the path of the newer."""
    run.save_checkpoint(11, state(11))
    run.save_checkpoint(12, state(12))
    return run.path / "checkpoint" / "12"


@pytest.mark.parametrize("name", ["state.safetensors", "SHA256SUMS"])
def test_every_flipped_bit_is_found(run: RunFolder, name: str) -> None:
    path = two(run) / name
    good = path.read_bytes()
    for bit in range(0, 8 * len(good), 13):  # 13: every bit of a byte has its turn
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bad)
        found, notes = run.load_checkpoint()
        assert found is not None
        assert found.epoch == 11, bit
        assert notes == ["checkpoint 12 is damaged (checksum): using checkpoint 11"]
    path.write_bytes(good)
    assert loaded(run) == (12, 12)


@pytest.mark.parametrize("name", ["state.safetensors", "SHA256SUMS"])
def test_every_truncation_is_found(run: RunFolder, name: str) -> None:
    path = two(run) / name
    good = path.read_bytes()
    for length in [*range(0, len(good), 5), len(good) - 1]:
        path.write_bytes(good[:length])
        assert loaded(run) == (11, 11)
    path.write_bytes(good + b"\0")
    assert loaded(run) == (11, 11)


def forged(run: RunFolder, target: Path, run_id: str, epoch: int) -> None:
    """Another run's or epoch's checkpoint, whole in itself, copied to `target`."""
    other = RunFolder.create(run.path.parent.parent / "others", run_id, SPEC, INPUTS)
    other.save_checkpoint(epoch, state(epoch))
    shutil.copytree(other.path / "checkpoint" / str(epoch), target, dirs_exist_ok=True)


def emptied(folder: Path) -> Path:
    shutil.rmtree(folder)
    folder.mkdir()
    return folder


def replaced_by_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("x")


def foreign_bytes(target: Path, data: bytes) -> None:
    (target / "state.safetensors").write_bytes(data)
    (target / "SHA256SUMS").write_bytes(checkpoint_module._sums(data))


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda run, new: (new / "state.safetensors").unlink(), "state.safetensors is missing"),
        (lambda run, new: (new / "SHA256SUMS").unlink(), "SHA256SUMS is missing"),
        (lambda run, new: replaced_by_a_file(new), "unreadable: Not a directory"),
        (lambda run, new: emptied(new), "state.safetensors is missing"),
        (lambda run, new: foreign_bytes(new, b"PK\3\4 no tensors"), "not safetensors"),
        (lambda run, new: foreign_bytes(new, b""), "not safetensors"),
        (lambda run, new: foreign_bytes(new, b"\2" + b"\0" * 7 + b"{}"), "its gammabeta_format"),
        (lambda run, new: forged(run, new, "other", 12), "its run is other, not abc123"),
        (lambda run, new: forged(run, new, "abc123", 13), "its epoch is 13, not 12"),
    ],
)
def test_damaged_checkpoints_are_passed_over(
    run: RunFolder, damage: Callable[[RunFolder, Path], object], why: str
) -> None:
    new = two(run)
    damage(run, new)
    found, notes = run.load_checkpoint()
    assert found is not None
    assert found.epoch == 11
    assert len(notes) == 1
    assert notes[0].startswith(f"checkpoint 12 is damaged ({why}")
    assert notes[0].endswith("): using checkpoint 11")
    run.save_checkpoint(12, state(12))  # and training mends it
    assert loaded(run) == (12, 12)


def test_with_all_checkpoints_damaged_there_is_none(run: RunFolder) -> None:
    two(run)
    for path in (run.path / "checkpoint").glob("*/SHA256SUMS"):
        path.unlink()
    found, notes = run.load_checkpoint()
    assert found is None
    assert notes == [
        f"checkpoint {epoch} is damaged (SHA256SUMS is missing): no good one is left"
        for epoch in (12, 11)
    ]


@pytest.mark.parametrize("last", [None, b"", b"x", b"99\n", b"-1", b"012", b"\xff\n", b"1" * 9000])
def test_without_a_good_pointer_the_newest_is_used(run: RunFolder, last: bytes | None) -> None:
    two(run)
    (run.path / "checkpoint" / "notes").mkdir()
    if last is None:
        (run.path / "LAST").unlink()
    else:
        (run.path / "LAST").write_bytes(last)
    assert loaded(run) == (12, 12)
    assert run.load_checkpoint()[1] == []
    assert run.epochs_done == 12


def test_the_pointer_decides_but_does_not_lose_a_newer_good_one(run: RunFolder) -> None:
    two(run)
    (run.path / "LAST").write_text("11\n")
    assert loaded(run) == (11, 11)
    (run.path / "checkpoint/11/SHA256SUMS").unlink()
    assert loaded(run) == (12, 12)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum here")
def test_sha256sum_agrees(run: RunFolder) -> None:
    folder = two(run)
    command = ["sha256sum", "--strict", "-c", "SHA256SUMS"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout == "state.safetensors: OK\n"


def test_nothing_is_pickled(run: RunFolder) -> None:
    two(run)
    run.record_session({})
    run.append_metrics({"epoch": 1})
    run.write_result({"status": "ok"})
    with run.lock():
        pass
    names = files(run.path)
    assert len(names) == 11
    for name in names:
        start = (run.path / name).read_bytes()[:4]
        assert not start.startswith((b"\x80", b"PK", b"(", b"]\x94", b"\x93NUMPY")), name


# --- records and results -----------------------------------------------------------------------


def test_metrics_survive_a_torn_line(run: RunFolder) -> None:
    assert run.metrics() == []
    run.truncate_metrics(0)
    path = run.path / "metrics.jsonl"
    assert not path.exists()
    run.append_metrics({"epoch": 1, "loss": float("nan"), "more": [float("inf"), (1, 2.5)]})
    run.append_metrics({"epoch": 2})
    good = [{"epoch": 1, "loss": None, "more": [None, [1, 2.5]]}, {"epoch": 2}]
    whole = path.read_bytes()
    assert len(whole.splitlines()) == 2
    for torn in (b"{", b'{"epoch": 3}', b"\0" * 50, b"\xff"):
        path.write_bytes(whole + torn)
        assert run.metrics() == good
        run.append_metrics({"epoch": 3})
        assert run.metrics() == [*good, {"epoch": 3}]
        path.write_bytes(whole + torn)
        run.truncate_metrics(2)
        assert path.read_bytes() == whole
    run.truncate_metrics(1)
    assert run.metrics() == good[:1]
    assert run.epochs_done == 1
    path.write_bytes(b"{")  # nothing but a torn line
    run.append_metrics({"epoch": 1})
    assert run.metrics() == [{"epoch": 1}]


@pytest.mark.parametrize(
    "line", [b"", b"x", b"[1]", b"{}", b'{"epoch": "1"}', b"\xff", b"[" * 9999]
)
def test_garbage_between_records_is_named(run: RunFolder, line: bytes) -> None:
    run.append_metrics({"epoch": 1})
    path = run.path / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + line + b"\n" + path.read_bytes())
    with pytest.raises(RunError, match=r"metrics\.jsonl, line 2 ") as raised:
        run.metrics()
    one_line(raised)
    assert run.epochs_done == 0


@pytest.mark.parametrize("record", [{}, {"epoch": "1"}, {"epoch": float("nan")}])
def test_records_need_an_epoch(run: RunFolder, record: dict[str, Any]) -> None:
    with pytest.raises(InputError, match='number "epoch"'):
        run.append_metrics(record)
    assert run.metrics() == []


def test_json_files_are_plain_and_sorted(run: RunFolder) -> None:
    expected = '{\n "format": 1,\n "lr": 0.1,\n "model": "m"\n}\n'
    assert (run.path / "spec.json").read_text() == expected
    run.record_session({"host": "a"})
    run.record_session({"host": "b"})
    assert run.env == {"sessions": [{"host": "a"}, {"host": "b"}]}
    assert not run.result
    run.write_result({"status": "failed", "loss": float("nan")})
    assert run.result == {"status": "failed", "loss": None}
    assert status(run) == "failed"
    run.write_result({"status": "ok"})
    assert status(run) == "ok"
    with pytest.raises(InputError, match="ok or failed"):
        run.write_result({"status": "fine"})


@pytest.mark.parametrize("data", [b"", b"{", b"null", b"[]", b"{}", b'{"status": "o', b"\xff\xfe"])
def test_damaged_files_are_absent_or_named(run: RunFolder, data: bytes) -> None:
    (run.path / "result.json").write_bytes(data)
    assert run.result is None
    assert status(run) == "stopped"
    (run.path / "env.json").write_bytes(data)
    with pytest.raises(RunError, match=r"env\.json is damaged"):
        run.record_session({})
    if data != b"{}":
        (run.path / "inputs.json").write_bytes(data)
        with pytest.raises(RunError, match=r"inputs\.json is damaged"):
            _ = run.inputs
    (run.path / "inputs.json").unlink()
    with pytest.raises(RunError, match="could not read"):
        _ = run.inputs


# --- folders -----------------------------------------------------------------------------------


def test_create_opens_what_is_there(run: RunFolder) -> None:
    root = run.path.parent
    again = RunFolder.create(root, run.id, dict(SPEC), {"ignored": 1})
    assert again == run
    assert hash(again) == hash(run)
    assert (again.id, again.spec, again.inputs) == ("abc123", SPEC, INPUTS)
    for other in ({**SPEC, "lr": 0.2}, {**SPEC, "seed": 1}, {"format": FORMAT, "model": "m"}):
        with pytest.raises(InputError, match=r"abc123 has another spec \((lr|seed)\)") as raised:
            RunFolder.create(root, run.id, other, INPUTS)
        one_line(raised)
    assert RunFolder.open(run.path).spec == SPEC


def test_create_loses_a_race_gracefully(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.replace

    def slow(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "replace", real)
        RunFolder.create(tmp_path, "abc", SPEC, {"winner": 1})
        real(source, target)

    monkeypatch.setattr(os, "replace", slow)
    assert RunFolder.create(tmp_path, "abc", SPEC, {"winner": 2}).inputs == {"winner": 1}
    assert names(tmp_path) == ["abc"]


@pytest.mark.parametrize("run_id", ["", ".", "..", "a/b", "../a", ".hidden", "a\0"])
def test_run_ids_stay_in_the_root(tmp_path: Path, run_id: str) -> None:
    with pytest.raises(InputError, match="cannot name a run"):
        RunFolder.create(tmp_path / "runs", run_id, SPEC, INPUTS)
    assert names(tmp_path) == []


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    root = tmp_path / "file"
    root.write_text("x")
    for each in (root, root / "deeper"):
        with pytest.raises(InputError, match="choose another --runs folder") as raised:
            RunFolder.create(each, "abc", SPEC, INPUTS)
        one_line(raised)
    with pytest.raises(InputError, match="no folder of runs"):
        list_runs(root)
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_a_root_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "mkdir", refuse)
    for root in (tmp_path, tmp_path / "new" / "runs"):
        with pytest.raises(InputError, match=os.strerror(number)) as raised:
            RunFolder.create(root, "abc", SPEC, INPUTS)
        assert "choose another --runs folder" in one_line(raised)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (None, "no spec.json"),
        (b'{"format": 2}', "has format 2, this gammabeta reads 1: upgrade it"),
        (b'{"format": "x"}', "has format 'x'"),
        (b"{}", "has format None"),
        (b"[1]", "is damaged"),
        (b"{", "is damaged"),
        (b"\x80\x04", "is damaged"),
    ],
)
def test_foreign_folders_are_refused(tmp_path: Path, spec: bytes | None, message: str) -> None:
    path = tmp_path / "abc"
    path.mkdir()
    if spec is not None:
        (path / "spec.json").write_bytes(spec)
    before = files(path)
    with pytest.raises(InputError, match=message) as raised:
        RunFolder.open(path)
    one_line(raised)
    with pytest.raises(InputError, match=message):
        RunFolder.create(tmp_path, "abc", SPEC, INPUTS)
    assert list_runs(tmp_path) == []
    assert files(path) == before


def test_open_refuses_what_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for name, message in [("file", "no run folder"), ("none", "does not exist"), ("a\0", "cannot")]:
        with pytest.raises(InputError, match=message) as raised:
            RunFolder.open(tmp_path / name)
        one_line(raised)


def test_open_knows_the_id_of_the_working_folder(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.save_checkpoint(1, state(1))
    monkeypatch.chdir(run.path)
    here = RunFolder.open(Path())
    assert here.id == run.id
    assert loaded(here) == (1, 1)


def test_list_and_find(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    assert list_runs(root) == []
    with pytest.raises(InputError, match="there are no runs in"):
        find_run(root, "a")
    for age, name in enumerate(["bbb1", "aaa2", "aaa1", "aaa"]):
        path = RunFolder.create(root, name, SPEC, INPUTS).path / "spec.json"
        os.utime(path, (1000 - age, 1000 - age))
    shutil.copytree(root / "bbb1", root / ".gammabeta-tmp-x")
    (root / "empty").mkdir()
    (root / "notes.txt").write_text("x")
    assert [run.id for run in list_runs(root)] == ["aaa", "aaa1", "aaa2", "bbb1"]
    assert find_run(root, "b").id == "bbb1"
    assert find_run(root, "aaa").id == "aaa"  # a whole id, though it also begins others
    for prefix, message in [
        ("aa", "'aa' could be aaa, aaa1, aaa2: write more"),
        ("", "could be"),
        ("bbb2", "no run 'bbb2' in .*: the nearest are bbb1"),
        ("zz", "no run 'zz'"),
    ]:
        with pytest.raises(InputError, match=message) as raised:
            find_run(root, prefix)
        one_line(raised)
    for number in range(20):
        RunFolder.create(root, f"c{number}", SPEC, INPUTS)
    with pytest.raises(InputError, match="and 15 more"):
        find_run(root, "c")


def test_what_kills_left_is_swept_and_nothing_else(run: RunFolder) -> None:
    root = run.path.parent
    for name in (".gammabeta-tmp-old-12345678", ".gammabeta-tmp-new-12345678", ".tmp-of-others"):
        (root / name).mkdir()
        if "new" not in name:
            os.utime(root / name, (1000, 1000))
    (run.path / ".tmp-result.json-77").write_text("{")
    RunFolder.create(root, "second", SPEC, INPUTS)
    hidden = {name for name in names(root) if name.startswith(".")}
    assert hidden == {".gammabeta-tmp-new-12345678", ".tmp-of-others"}
    with run.lock():
        assert files(run.path) == ["inputs.json", "lock", "spec.json"]


def test_remove(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    root = run.path.parent
    with run.lock(), pytest.raises(RunError, match="is being trained"):
        run.remove()
    assert list_runs(root) == [run]

    def refuse(*_: object) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(RunError, match=r"could not remove .* \(Permission denied\)"):
            run.remove()
    assert list_runs(root) == [run]
    run.remove()
    assert names(root) == []
    with pytest.raises(RunError, match="could not"):
        run.append_metrics({"epoch": 1})
    assert names(root) == []


# --- the lock ----------------------------------------------------------------------------------

HOLDER = """
import sys, time
from pathlib import Path
from gammabeta.store import RunFolder
with RunFolder.open(Path(sys.argv[1])).lock():
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_processes_and_a_killed_holder(run: RunFolder) -> None:
    assert status(run) == "stopped"
    command = [sys.executable, "-c", HOLDER, str(run.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            assert status(run) == "running"
            message = f"run abc123 is being trained by process {holder.pid} on .*: wait for it, or "
            with pytest.raises(RunError, match=message) as raised, run.lock():
                pytest.fail("two holders")
            one_line(raised)
            with pytest.raises(RunError, match="is being trained"):
                run.remove()
            assert RunFolder.open(run.path).spec == SPEC
        finally:
            holder.send_signal(signal.SIGKILL)
            holder.wait()
    assert status(run) == "stopped"
    with run.lock():
        assert status(run) == "running"
        run.write_result({"status": "ok"})
        assert status(run) == "ok"


def test_the_lock_is_released_and_its_errors_are_not_swallowed(run: RunFolder) -> None:
    with pytest.raises(FileNotFoundError, match="mine"), run.lock():
        raise FileNotFoundError("mine")
    (run.path / "lock").write_text("process 1 on a host with a very, very long name" * 3)
    match = f"process {os.getpid()} on "
    with run.lock(), pytest.raises(RunError, match=match) as raised, run.lock():
        pytest.fail("two holders")
    assert "very long name" not in one_line(raised)
    assert status(run) == "stopped"


def test_a_look_at_the_status_does_not_stop_a_run(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")
    with run.lock():
        pass
    looking = os.open(run.path / "lock", os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    assert status(run) == "stopped"  # two may look at a time
    monkeypatch.setattr(time, "sleep", lambda _: os.close(looking))  # it looks away meanwhile
    with run.lock():
        assert status(run) == "running"


def test_a_lock_that_cannot_be_taken(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(RunError, match="No locks available") as raised, run.lock():
        pytest.fail("not locked")
    one_line(raised)
    assert status(run) == "stopped"
