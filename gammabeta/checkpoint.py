"""Checkpoints: the state of a run after an epoch, complete and under a checksum, or not there.

A checkpoint is ``checkpoint/<epoch>/{state.safetensors,SHA256SUMS}`` in a run folder. It is written
under a hidden name, flushed to the disk and renamed; only then does the file ``LAST`` point to it.
Reading trusts nothing: every byte is under a checksum, and a damaged checkpoint is passed over for
the one before it. The same tensors give the same bytes, so two runs can be compared with
``sha256sum``. Nothing here knows what the tensors mean, and nothing is ever pickled.
"""

import contextlib
import hashlib
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch

from gammabeta.disk import sync_folder, write_atomically, write_file, writing
from gammabeta.errors import InputError
from gammabeta.tensorfile import encode, read_header

FORMAT = 1  # of the tensors' file, in its metadata
KEPT = 2  # the newest, and one more in case the newest is damaged
STATE, SUMS, POINTER = "state.safetensors", "SHA256SUMS", "LAST"


@dataclass(frozen=True)
class Checkpoint:
    """The state after `epoch` epochs: tensors on the CPU, by name, in alphabetical order."""

    epoch: int
    tensors: dict[str, torch.Tensor]


def save(folder: Path, run_id: str, epoch: int, tensors: Mapping[str, torch.Tensor]) -> None:
    """Add the checkpoint of `epoch` to a run folder, point LAST to it and drop the older ones.

    An existing checkpoint of that epoch is replaced; those of later epochs belong to a future that
    was given up, and go. Raises RunError if the disk refuses; what could be loaded before still
    can. Raises InputError for an epoch below 0 and for a tensor named ``__metadata__``.
    """
    if epoch < 0:
        raise InputError(f"a checkpoint of epoch {epoch}: write 0 or more")
    data = _encode(run_id, epoch, tensors)
    target = folder / "checkpoint" / str(epoch)
    temporary = target.with_name(f".tmp-{epoch}-{os.getpid()}")
    with writing(target):
        try:
            target.parent.mkdir(exist_ok=True)
            # a killed process may have had our number: in a container it is often 1
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            write_file(temporary / STATE, data)
            write_file(temporary / SUMS, _sums(data))
            sync_folder(temporary)
            _put_in_place(temporary, target)
            sync_folder(target.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    write_atomically(folder / POINTER, f"{epoch}\n".encode())
    _prune(target.parent, epoch)


def load(folder: Path, run_id: str) -> tuple[Checkpoint | None, list[str]]:
    """The newest good checkpoint of a run folder, and a line about each damaged one passed over.

    Never raises for what it finds on the disk: with nothing good it is None.
    """
    damaged: list[tuple[str, str]] = []
    found: Checkpoint | None = None
    then = "no good one is left"
    for epoch, path in candidates(folder):
        checkpoint = _read(path, run_id, epoch)
        if isinstance(checkpoint, Checkpoint):
            found, then = checkpoint, f"using checkpoint {path.name}"
            break
        damaged.append((path.name, checkpoint))
    return found, [f"checkpoint {name} is damaged ({why}): {then}" for name, why in damaged]


def candidates(folder: Path) -> list[tuple[int, Path]]:
    """(epoch, path) of every checkpoint in a run folder, good or not, the best to try first.

    That is the one LAST points to, then older ones, then newer ones (a kill before LAST was moved);
    where LAST cannot be read or points nowhere, simply the newest first.
    """
    found: list[tuple[int, Path]] = []
    with contextlib.suppress(OSError):
        for path in (folder / "checkpoint").iterdir():
            epoch = _epoch(path.name.removeprefix(".old-"))  # see _put_in_place
            if epoch is not None:
                found.append((epoch, path))
    last: float | None = None
    with contextlib.suppress(OSError, UnicodeDecodeError):
        last = _epoch((folder / POINTER).read_text("ascii").removesuffix("\n"))
    if last not in [epoch for epoch, _ in found]:
        last = math.inf

    def rank(candidate: tuple[int, Path]) -> tuple[bool, int, bool]:
        epoch, path = candidate
        return epoch <= last, epoch, path.name == str(epoch)

    return sorted(found, key=rank, reverse=True)


def _epoch(name: str) -> int | None:
    return int(name) if name.isdecimal() and len(name) < 19 and str(int(name)) == name else None


def _put_in_place(temporary: Path, target: Path) -> None:
    """Rename, past an earlier checkpoint of the same epoch if there is one.

    No portable call swaps two folders, so for a moment the earlier one is called .old-<epoch>;
    `candidates` knows that name, so a kill in that moment loses nothing.
    """
    earlier = target.with_name(f".old-{target.name}")
    if not target.exists():
        temporary.replace(target)
        return
    shutil.rmtree(earlier, ignore_errors=True)
    target.replace(earlier)
    try:
        temporary.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            earlier.replace(target)
        raise


def _prune(folder: Path, epoch: int) -> None:
    """Keep the newest checkpoints up to `epoch`. A failure costs space, not a result: passed over,
    the next save tries again."""
    with contextlib.suppress(OSError):
        names = [path.name for path in folder.iterdir()]
        epochs = sorted(number for name in names if (number := _epoch(name)) is not None)
        kept = {str(number) for number in [each for each in epochs if each <= epoch][-KEPT:]}
        for name in names:
            ours = _epoch(name) is not None or name.startswith((".tmp-", ".old-"))
            if ours and name not in kept:
                shutil.rmtree(folder / name, ignore_errors=True)


def _sums(data: bytes) -> bytes:
    return f"{hashlib.sha256(data).hexdigest()}  {STATE}\n".encode()


def _encode(run_id: str, epoch: int, tensors: Mapping[str, torch.Tensor]) -> bytes:
    return encode(tensors, {"gammabeta_format": str(FORMAT), "epoch": str(epoch), "run": run_id})


def _read(path: Path, run_id: str, epoch: int) -> Checkpoint | str:
    """The checkpoint in a folder, or in a few words what is wrong with it."""
    try:
        data, sums = (path / STATE).read_bytes(), (path / SUMS).read_bytes()
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:
        return f"unreadable: {error.strerror or error}"
    if sums != _sums(data):
        return "checksum"
    try:
        tensors = safetensors.torch.load(data)
        metadata = read_header(data)[0].get("__metadata__", {})
    except Exception:  # another program wrote it, and a reader may raise anything about it
        return "not safetensors"
    wanted = {"gammabeta_format": str(FORMAT), "run": run_id, "epoch": str(epoch)}
    for key, value in wanted.items():
        if metadata.get(key) != value:
            return f"its {key} is {metadata.get(key)}, not {value}"
    return Checkpoint(epoch, {name: tensors[name] for name in sorted(tensors)})
