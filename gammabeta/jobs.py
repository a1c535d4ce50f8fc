"""Pieces of work in processes of their own, so many at a time; Ctrl-C ends all of them, and so do
SIGTERM or SIGHUP to this process and its death in any other way.

Not concurrent.futures: its pool hands out more work than there are workers, and what it has handed
out cannot be taken back, so that after Ctrl-C the next piece would begin.
"""

import _thread
import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

import torch

from gammabeta.stops import as_ctrl_c

Piece = TypeVar("Piece")
Result = TypeVar("Result")
_PATIENCE = 30.0  # seconds that a process has to stop by itself


def in_processes(
    work: Callable[[Piece], Result], pieces: Sequence[Piece], jobs: int
) -> Iterator[tuple[Piece, Result | None]]:
    """Give each piece with what `work` makes of it, as it is done; None where its process died.
    work: a function that can be pickled, and so can what it makes. The processes share this one's
    threads. Until it is closed SIGTERM and SIGHUP are as Ctrl-C (`stops.as_ctrl_c`)."""
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    threads = max(1, torch.get_num_threads() // jobs)
    left = list(reversed(pieces))
    active: dict[Any, tuple[Any, Piece]] = {}
    with as_ctrl_c():
        try:
            while left or active:
                while left and len(active) < jobs:
                    mine, theirs = context.Pipe(duplex=False)
                    piece = left.pop()
                    process = context.Process(target=_work, args=(theirs, work, piece, threads))
                    with _deaf():
                        process.start()
                    theirs.close()  # else its end would not be noticed here
                    active[mine] = process, piece
                ready: list[Any] = wait(list(active))
                for connection in ready:
                    process, piece = active.pop(connection)
                    found: Result | None = None
                    with contextlib.suppress(EOFError):
                        found = connection.recv()
                    process.join()
                    yield piece, found
        finally:
            _end([process for process, _ in active.values()])


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Processes that are started here hear Ctrl-C when they begin their work: before that, while
    they import torch, nothing would catch it, and each would print where it was."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # which would lift the mask when it begins
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(processes: Sequence[Any]) -> None:
    """Let them stop as Ctrl-C stops them, and kill what does not."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError, OSError):
            os.kill(process.pid, signal.SIGINT)
    for process in processes:
        process.join(_PATIENCE)
        if process.is_alive():
            process.kill()
            process.join()


def _work(connection: Connection, work: Callable[[Any], Any], piece: Any, threads: int) -> None:
    signal.signal(signal.SIGINT, _once)
    if hasattr(signal, "SIGHUP"):  # a closing terminal reaches all: the parent then stops each
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        if hasattr(signal, "pthread_sigmask"):  # a Ctrl-C since `_deaf` comes now
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        threading.Thread(target=_outlive_no_parent, daemon=True).start()
        torch.set_num_threads(threads)
        connection.send(work(piece))


def _once(number: int, frame: object) -> None:
    """Ctrl-C reaches every process of a terminal, and then we send it: the second must not hurt."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _outlive_no_parent() -> None:
    """Stop this process as Ctrl-C would once its parent has died, however that was: killed, or with
    its terminal. Else it would train on, unseen, and hold its run's lock."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    parent.join()  # waits on a pipe, or on Windows a handle, that only the parent holds
    if hasattr(signal, "pthread_kill"):  # which also wakes a main thread that waits
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        _thread.interrupt_main()
    time.sleep(_PATIENCE)
    os._exit(1)
