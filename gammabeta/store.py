"""Run folders: append-only plain files that can be killed at any moment and read by any program.

    <runs>/<id>/ spec.json      what the run is; never changes
                 inputs.json    what it was made from (hashes); never changes after a checkpoint
                 env.json       {"sessions": [...]}: where and how it was executed, one per start
                 metrics.jsonl  one record a line, each with its "epoch"
                 checkpoint/    the newest two, see checkpoint.py; LAST names the newest
                 result.json    the end of training, written last: {"status": "ok" or "failed", ...}
                 probe/         what `gammabeta analyze` measured: <name>.json, see probe/
                 lock           held while a process trains; its text says which

Knows nothing of training, and of a spec only that it is a JSON object with the key "format". JSON
has no nan and no infinity: both are written as null. Names that start with a dot are unfinished.
"""

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from gammabeta import checkpoint
from gammabeta.checkpoint import Checkpoint
from gammabeta.disk import (
    bytes_of,
    decode_json,
    encode_json,
    hidden_sibling,
    make_folder,
    sync_folder,
    write_all,
    write_atomically,
    writing,
)
from gammabeta.errors import InputError, RunError
from gammabeta.locks import hold, is_locked

__all__ = ["FORMAT", "Checkpoint", "RunFolder", "list_runs", "remove_runs"]

FORMAT = 1  # of spec.json and the folder around it
Status = Literal["ok", "failed", "running", "stopped", "damaged"]
# Reasons that lie in the chosen folder, so that another one helps; all others lie in the disk
_WRONG_FOLDER = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}
_WRONG_FOLDER |= {errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL}


@dataclass(frozen=True)
class RunFolder:
    """One run on the disk. `create` and `open` make it; every write is down on the disk on return.

    Writers hold `lock()`; reading needs no lock. Each write that the disk refuses raises RunError
    and leaves what was there before. damage: why spec.json cannot be read (`list_runs` and
    `run.find` make such a folder, which can be listed and removed); `spec` is then empty.
    """

    path: Path
    spec: dict[str, Any] = field(compare=False, repr=False)
    damage: str | None = field(default=None, compare=False, repr=False)

    @property
    def id(self) -> str:
        """The run's name: that of its folder. Checkpoints carry it, so a folder keeps its name."""
        return self.path.resolve().name

    @classmethod
    def create(
        cls, root: Path, run_id: str, spec: dict[str, Any], inputs: dict[str, Any]
    ) -> "RunFolder":
        """Make root/run_id in one atomic step, or open it if it is there.

        Raises InputError, with nothing created, if it is there with another spec or if `root`
        cannot hold it; RunError if the disk fails or is full.
        """
        if not run_id or run_id.startswith(".") or not set(run_id).isdisjoint("/\\\0"):
            raise InputError(f"{run_id!r} cannot name a run: write letters, digits, - and _")
        _check_format(spec, "the spec of a new run")
        path = Path(root) / run_id
        try:
            if path.parent.exists() and not path.parent.is_dir():
                raise InputError(f"{path.parent} is a file: choose another folder for runs")
            if not path.exists():
                make_folder(
                    path, {"spec.json": encode_json(spec), "inputs.json": encode_json(inputs)}
                )
        except OSError as error:
            reason = error.strerror or str(error)
            if error.errno in _WRONG_FOLDER:
                message = f"cannot make run folders in {path.parent} ({reason})"
                raise InputError(f"{message}: choose another folder for runs") from error
            raise RunError(f"could not create {path} ({reason}): no run was started") from error
        run = cls.open(path)
        other = [
            key
            for key in sorted({*spec, *run.spec})
            if encode_json(spec.get(key)) != encode_json(run.spec.get(key))
        ]
        if other:
            differs = ", ".join(other)
            raise InputError(f"{path} has another spec ({differs}): choose another folder for runs")
        return run

    @classmethod
    def find(cls, root: Path, run_id: str, spec: dict[str, Any]) -> "RunFolder | None":
        """The run of `create`, if it is there already; raises what `create` would raise."""
        try:
            there = os.path.lexists(root / run_id)
        except (OSError, ValueError) as error:  # ValueError: a path that no system accepts
            message = f"cannot look into {root} ({error}): choose another folder for runs"
            raise InputError(message) from None
        return cls.create(root, run_id, spec, {}) if there else None

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """The run folder at `path`. Raises InputError if there is none that can be read."""
        path = Path(path)
        try:
            data = (path / "spec.json").read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            what = "is no run folder (no spec.json in it)" if path.exists() else "does not exist"
            raise InputError(f"{path} {what}: name a folder such as runs/0123456789ab") from None
        except (OSError, ValueError) as error:  # ValueError: a path that no system accepts
            raise InputError(f"cannot read spec.json in {path} ({error})") from None
        spec = decode_json(data)
        _check_format(spec, str(path / "spec.json"))
        return cls(path, spec)

    @property
    def inputs(self) -> dict[str, Any]:
        """What `create` was given. Raises RunError if inputs.json is gone or damaged."""
        path = self.path / "inputs.json"
        inputs = decode_json(bytes_of(path))
        if not isinstance(inputs, dict) or not isinstance(inputs.get("data"), dict):
            raise RunError(f"{path} is damaged: remove the run folder and train it again")
        return inputs

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only writer for the length of a with block; the kernel ends it with the process.

        Raises RunError, naming the holder, if another process (or this one) holds it. A process
        forked inside the block shares the lock and keeps it until it ends.
        """
        with hold(self.path / "lock", f"run {self.id}"):
            for left in self.path.glob(".tmp-*"):  # by a killed writer: there is no other now
                with contextlib.suppress(OSError):
                    left.unlink()
            yield

    @property
    def env(self) -> dict[str, Any]:
        """{"sessions": [...]}, one for each start. Raises RunError if env.json is damaged."""
        path = self.path / "env.json"
        env = decode_json(bytes_of(path, b'{"sessions": []}'))
        if not isinstance(env, dict) or not isinstance(env.get("sessions"), list):
            raise RunError(f"{path} is damaged: move it away and go on")
        return env

    def record_session(self, session: dict[str, Any]) -> None:
        """Add to env.json where and how the run is executed this time."""
        sessions = [*self.env["sessions"], session]
        write_atomically(self.path / "env.json", encode_json({"sessions": sessions}))

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Add one line to metrics.jsonl. `record` needs a number "epoch" (InputError)."""
        line = encode_json(record, indent=None)
        if not _is_record(decode_json(line)):
            raise InputError(f'a record of metrics needs a number "epoch": {line.decode().strip()}')
        path = self.path / "metrics.jsonl"
        with writing(path):
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
            descriptor = os.open(path, flags, 0o666)
            try:
                size = os.lseek(descriptor, 0, os.SEEK_END)
                if size == 0:
                    sync_folder(self.path)
                else:
                    os.lseek(descriptor, -1, os.SEEK_END)
                    if os.read(descriptor, 1) != b"\n":  # torn by a kill
                        size = path.read_bytes().rfind(b"\n") + 1
                        os.ftruncate(descriptor, size)
                try:
                    write_all(descriptor, line)
                    os.fsync(descriptor)
                except BaseException:
                    with contextlib.suppress(OSError):
                        os.ftruncate(descriptor, size)
                    raise
            finally:
                os.close(descriptor)

    def metrics(self) -> list[dict[str, Any]]:
        """All records, oldest first; a last line torn by a kill is left out.

        Raises RunError, with file and line, for anything else that is no record.
        """
        return [record for _, record in self._metrics()]

    def _metrics(self) -> list[tuple[bytes, dict[str, Any]]]:
        path = self.path / "metrics.jsonl"
        found = []
        # A write ends with the newline, so what follows the last one was never finished.
        for number, line in enumerate(bytes_of(path, b"").split(b"\n")[:-1], start=1):
            record = decode_json(line)
            if not _is_record(record):
                raise RunError(f"{path}, line {number} is damaged: remove the line and go on")
            found.append((line + b"\n", record))
        return found

    def truncate_metrics(self, epoch: int) -> None:
        """Forget the records of later epochs, as a run that resumes after `epoch` needs it."""
        path = self.path / "metrics.jsonl"
        data = b"".join(line for line, record in self._metrics() if record["epoch"] <= epoch)
        if data != bytes_of(path, b""):
            write_atomically(path, data)

    def save_checkpoint(self, epoch: int, tensors: Mapping[str, torch.Tensor]) -> None:
        """Save the state after `epoch` epochs: see `checkpoint.save`. The newest two are kept."""
        checkpoint.save(self.path, self.id, epoch, tensors)

    def load_checkpoint(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest good checkpoint, or None, and a line about each damaged one passed over."""
        return checkpoint.load(self.path, self.id)

    def clear_result(self) -> None:
        """Forget a failure, as a run that is tried again needs it."""
        with writing(self.path / "result.json", "remove"):
            (self.path / "result.json").unlink(missing_ok=True)

    def write_result(self, result: dict[str, Any]) -> None:
        """Finish the run: only probes are written after this. "status" must be ok or failed."""
        if result.get("status") not in ("ok", "failed"):
            raise InputError(
                f'the "status" of a result is ok or failed, not {result.get("status")!r}'
            )
        write_atomically(self.path / "result.json", encode_json(result))

    @property
    def result(self) -> dict[str, Any] | None:
        """What `write_result` was given; None while there is none, or if it is damaged."""
        result = decode_json(bytes_of(self.path / "result.json", b""))
        good = isinstance(result, dict) and result.get("status") in ("ok", "failed")
        return result if good else None

    def write_probe(self, name: str, found: dict[str, Any]) -> Path:
        """Write probe/<name>.json, in place of an older one; returns its path. Needs no lock: a
        probe only reads the run, and each file is there whole or not at all."""
        path = self.path / "probe" / f"{name}.json"
        with writing(path.parent, "create"):
            if not path.parent.exists():
                path.parent.mkdir(exist_ok=True)
                sync_folder(self.path)
        write_atomically(path, encode_json(found, indent=None))
        return path

    def probe(self, name: str) -> dict[str, Any] | None:
        """What `write_probe` was given; None while there is none, or if it is damaged."""
        found = decode_json(bytes_of(self.path / "probe" / f"{name}.json", b""))
        return found if isinstance(found, dict) else None

    @property
    def status(self) -> Status:
        """How the run stands: its result, or else running while a process holds the lock."""
        if self.damage is not None:
            return "damaged"
        result = self.result
        if result is not None:
            return "ok" if result["status"] == "ok" else "failed"
        return "running" if is_locked(self.path / "lock") else "stopped"

    @property
    def epochs_done(self) -> int:
        """Epochs behind the run: of its last checkpoint, or without any of its last record."""
        found = checkpoint.candidates(self.path)
        if found:
            return found[0][0]
        try:
            return max((int(record["epoch"]) for record in self.metrics()), default=0)
        except RunError:  # a list of runs should not stop at one damaged file
            return 0

    def remove(self) -> None:
        """Delete the run. Raises RunError while a process trains it."""
        remove_runs([self])


def remove_runs(runs: Sequence[RunFolder]) -> None:
    """Delete runs. Raises RunError, with all of them still there, if one is being trained or lies
    where nothing can be removed."""
    moved: list[tuple[Path, Path]] = []
    with contextlib.ExitStack() as locks:
        for run in runs:
            for folder in (run.path.resolve().parent, run.path):
                if not os.access(folder, os.W_OK):
                    raise _kept(run, f"{folder} is read-only")
            try:
                locks.enter_context(run.lock())
            except RunError as error:
                if isinstance(error.__cause__, OSError):
                    raise _kept(run, error.__cause__) from error
                raise
        for run in runs:
            path = run.path.resolve()
            try:
                hidden = hidden_sibling(path)
                path.replace(hidden)  # so that a kill leaves no half of a run
            except OSError as error:
                for before, after in moved:
                    after.replace(before)
                raise _kept(run, error) from error
            moved.append((path, hidden))
    for _, hidden in moved:
        try:
            shutil.rmtree(hidden)
        except OSError as error:
            reason = error.strerror or error
            raise RunError(f"could not remove all of {hidden} ({reason}): remove it") from error


def _kept(run: RunFolder, why: OSError | str) -> RunError:
    reason = why if isinstance(why, str) else why.strerror or why
    return RunError(
        f"could not remove {run.path} ({reason}): nothing was removed; mend that and try again"
    )


def list_runs(root: Path, damaged: bool = False) -> list[RunFolder]:
    """All runs below `root`, oldest first; [] if there is no such folder. Skips everything else.

    damaged: also those whose spec.json is gone or cannot be read. Raises InputError if `root` is a
    file or cannot be read.
    """
    try:
        paths = [path for path in Path(root).iterdir() if not path.name.startswith(".")]
    except FileNotFoundError:
        return []
    except OSError as error:
        message = f"{root} is no folder of runs ({error.strerror or error}): name another"
        raise InputError(message, "runs") from None
    found: list[tuple[int, str, RunFolder]] = []
    for path in paths:
        with contextlib.suppress(OSError):  # removed while we look, or not ours to read
            try:
                run, dated = RunFolder.open(path), path / "spec.json"
            except InputError as error:
                left = _left_of_run(path)
                if not damaged or left is None:
                    continue
                run, dated = RunFolder(path, {}, damage=str(error)), left
            found.append((dated.stat().st_mtime_ns, path.name, run))
    return [run for *_, run in sorted(found, key=lambda each: each[:2])]


def _left_of_run(path: Path) -> Path | None:
    """The file by which a folder without a good spec.json is a run all the same: inputs.json, which
    only a run has, or a broken spec.json under a name that only a run has."""
    if (path / "inputs.json").exists():
        return path / "inputs.json"
    named = re.fullmatch("[0-9a-f]{12}", path.name) and (path / "spec.json").exists()
    return path / "spec.json" if named else None


def _is_record(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("epoch"), int | float)


def _check_format(spec: Any, where: str) -> None:
    if not isinstance(spec, dict):
        raise InputError(f"{where} is damaged (no JSON object): remove the run, or name another")
    number = spec.get("format")
    if type(number) is int and number > FORMAT:
        raise InputError(f"{where} has format {number}, this gammabeta reads {FORMAT}: upgrade it")
    if number != FORMAT:
        raise InputError(f"{where} has format {number!r}: only format {FORMAT} is a gammabeta run")
