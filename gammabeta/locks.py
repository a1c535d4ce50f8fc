"""Locks on files: one writer at a time. The kernel ends a lock with the process that holds it."""

import contextlib
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from gammabeta.disk import writing
from gammabeta.errors import HeldError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


@contextlib.contextmanager
def hold(path: Path, what: str) -> Iterator[None]:
    """Be the only holder of the file `path` for the length of a with block; its text then says who
    holds it. Raises HeldError, naming the holder of `what`, if somebody else does."""
    with writing(path, "open"):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with writing(path, "lock"):
            locked = try_lock(descriptor)
            for _ in range(10):  # `is_locked` holds it for an instant: no reason to give up
                if locked:
                    break
                time.sleep(0.01)
                locked = try_lock(descriptor)
        if not locked:
            by = holder(descriptor)
            raise HeldError(
                f"{what} is being trained by {by}: wait for it, or choose another folder for runs",
                by,
            )
        with contextlib.suppress(OSError):  # only the text of an error message
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        os.close(descriptor)


def try_lock(descriptor: int, shared: bool = False) -> bool:
    """Lock an open file for this process; False if another one holds it. Raises OSError."""
    try:
        if sys.platform == "win32":
            os.lseek(descriptor, 1 << 20, os.SEEK_SET)  # past the text, which others must read
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def is_locked(path: Path) -> bool:
    """Whether another process, or another opening of the file in this one, holds it."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # never locked, or not ours to read
        return False
    try:
        return not try_lock(descriptor, shared=True)
    except OSError:
        return False
    finally:
        os.close(descriptor)


def holder(descriptor: int) -> str:
    """Who says to hold an open file: its text."""
    with contextlib.suppress(OSError):
        os.lseek(descriptor, 0, os.SEEK_SET)
        return os.read(descriptor, 300).decode(errors="replace") or "another process"
    return "another process"
