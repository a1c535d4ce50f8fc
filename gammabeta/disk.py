"""Bytes that survive a kill: files and folders that are there whole or not at all, and JSON.

Everything is flushed to the disk before it gets its name, so a reader, a kill or a power cut never
meets half of it. What cannot be written is a RunError of one line, and leaves what was there.
"""

import contextlib
import errno
import json
import math
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gammabeta.errors import InputError, RunError

_HIDDEN = ".gammabeta-tmp-"  # long: what else lies beside the runs is not ours to sweep
_STALE = 3600.0  # seconds; an unfinished folder older than this is what a kill left behind
FAILING = {errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG}  # another name would not help
_BINARY = getattr(os, "O_BINARY", 0)  # Windows would write \n as two bytes


@contextlib.contextmanager
def writing(path: Path, verb: str = "write") -> Iterator[None]:
    """Turn an OSError of the block (disk full, no permission, ...) into a one-line RunError."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"could not {verb} {path} ({error.strerror or error}): the last checkpoint is intact, "
            "so the same request goes on from there once that is mended"
        ) from error


def write_atomically(path: Path, data: bytes) -> None:
    """`replace_file` for the files of a run: raises RunError if it cannot be written."""
    with writing(path):
        replace_file(path, data)


def replace_file(path: Path, data: bytes) -> None:
    """Replace the file `path` by `data`: after a kill or a power cut it is the old or the new one.

    Raises OSError if it cannot be written, and leaves nothing but the old file (or, where only
    the last flush failed, the new one).
    """
    temporary = _temporary(path)
    try:
        write_file(temporary, data)
        temporary.replace(path)
    except BaseException:  # an interrupt must not leave the file either
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def check_name(path: Path, example: str) -> None:
    """Raise InputError for a path under which no file can be. example: a good name for one."""
    try:
        if "\0" in str(path):  # which pathlib takes for a file that is not there
            raise ValueError("it has a null byte")
        is_folder, has_parent = path.is_dir(), path.parent.is_dir()
    except (OSError, ValueError) as error:  # a path that no system accepts
        raise InputError(f"{str(path)!r} is no file name ({error}): name another") from None
    if is_folder:
        raise InputError(f"{path} is a folder: name a file, for example {path / example}")
    if not has_parent:
        raise InputError(f"{no_folder(path.parent)}, or name another file")


def no_folder(path: Path) -> str:
    """Why `path` can hold nothing, where it is no folder, and the first thing to do about it."""
    above = next((each for each in (path, *path.parents) if os.path.lexists(each)), path)
    if os.path.lexists(above) and not above.is_dir():
        return f"{above} is a file, not a folder: move it away"
    return f"there is no folder {path}: make it"


def check_file(path: Path, example: str) -> None:
    """Raise InputError for a file that cannot be written now, RunError where the disk is full or
    broken: to be called before the work for it.

    A file that is there is no reason: what a user names is replaced, whole, when its successor is
    on the disk (`replace_file`), and the help of every command says so.
    """
    check_name(path, example)
    try:  # in truth: some folders, such as /proc, only say that they can be written in
        try_writing(path)
    except OSError as error:
        reason = error.strerror or error
        if error.errno in FAILING:
            raise RunError(f"could not write {path} ({reason})") from None
        raise InputError(
            f"no file can be written in {path.parent} ({reason}): name another folder"
        ) from None


def replaces(*paths: Path) -> str:
    """What to add to `wrote FILE`; to be asked before it is written."""
    return ", in place of what was there" if any(path.exists() for path in paths) else ""


def try_writing(path: Path) -> None:
    """Raise OSError where `replace_file` could not write this file now. Leaves nothing."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    temporary = _temporary(path)
    try:
        write_file(temporary, b"")
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".tmp-{path.name}-{os.getpid()}")


def replace_files(files: Mapping[Path, bytes]) -> None:
    """All of them as `replace_file` does it, or none: where one cannot be written, those that were
    there before are there again. Raises OSError.

    Everything is on the disk before the first file is replaced, so that a full disk changes none.
    """
    waiting: dict[Path, Path] = {}
    done: list[tuple[Path, bytes | None]] = []  # and what was there before
    try:
        for path, data in files.items():
            waiting[path] = _temporary(path)
            write_file(waiting[path], data)
        for path, temporary in waiting.items():
            before = path.read_bytes() if path.is_file() else None
            temporary.replace(path)
            done.append((path, before))
    except BaseException:
        for path, before in done:
            with contextlib.suppress(OSError):
                if before is None:
                    path.unlink()
                else:
                    replace_file(path, before)
        for temporary in waiting.values():
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        raise
    for folder in {path.parent for path in files}:
        sync_folder(folder)


def write_files(files: Mapping[Path, bytes]) -> None:
    """`replace_files` for what a user names. Raises RunError where one cannot be written."""
    try:
        replace_files(files)
    except OSError as error:
        names = " and ".join(map(str, files))
        raise RunError(f"could not write {names} ({error.strerror or error})") from None


def write_file(path: Path, data: bytes) -> None:
    """Write a file that nobody reads yet, down to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _BINARY, 0o666)
    try:
        write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """os.write until everything is written: one call may take only a part. Raises OSError."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def sync_folder(path: Path) -> None:
    """Make renames in a folder last through a power cut. Raises OSError."""
    if os.name == "nt":  # which has no such call
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems sync folders by themselves
            raise
    finally:
        os.close(descriptor)


def make_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """A folder with these files, complete or not at all. Raises OSError.

    If another process is faster, its folder stays. Sweeps away what kills left beside it.
    """
    root = path.parent
    made = [folder for folder in (root, *root.parents) if not folder.exists()]
    temporary = hidden_sibling(path)
    try:
        root.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        for name, data in files.items():
            write_file(temporary / name, data)
        sync_folder(temporary)
        for folder in made:
            sync_folder(folder.parent)
        temporary.replace(path)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        for folder in made:
            with contextlib.suppress(OSError):  # not made yet, or another process uses it already
                folder.rmdir()
        if not isinstance(error, OSError) or not path.exists():
            raise
    sync_folder(root)
    for left in root.glob(f"{_HIDDEN}*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _STALE:
                shutil.rmtree(left)


def hidden_sibling(path: Path) -> Path:
    """A free name beside `path` for a folder that is being made or removed."""
    return path.with_name(f"{_HIDDEN}{path.name}-{secrets.token_hex(4)}")


def encode_json(value: Any, indent: int | None = 1) -> bytes:
    """JSON with sorted keys and a last newline; nan and infinity become null."""
    text = json.dumps(_without_nan(value), sort_keys=True, indent=indent, allow_nan=False)
    return f"{text}\n".encode()


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return value


def decode_json(data: bytes) -> Any:
    """The JSON value, or None for what is none: no file here holds a mere null."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def bytes_of(path: Path, missing: bytes | None = None) -> bytes:
    """A file's bytes, or `missing` if it is not there. Raises RunError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        if isinstance(error, FileNotFoundError) and missing is not None:
            return missing
        raise RunError(f"could not read {path} ({error.strerror or error})") from error
