"""How a program is stopped from outside: by Ctrl-C, by SIGTERM, or by SIGHUP when its terminal
closes. Whichever it is, whoever keeps files goes through the same `except` and `finally`.

Standard library only: the package calls `stop_quietly` before it imports anything large.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

STOPPED = "gammabeta: stopped"
_NAMES = ("SIGTERM", "SIGHUP")  # Windows has no SIGHUP


class Stopped(KeyboardInterrupt):
    """SIGTERM or SIGHUP; number: of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextlib.contextmanager
def as_ctrl_c() -> Iterator[None]:
    """SIGTERM and SIGHUP raise Stopped, in the main thread, where alone Python hears signals. One
    that is ignored (nohup) or that somebody else hears is left alone."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        if signal.getsignal(signal.SIGINT) is _end:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
        before = {number: signal.getsignal(number) for number in numbers}
    ours = [number for number, handler in before.items() if handler is signal.SIG_DFL]
    try:
        for number in ours:
            signal.signal(number, _raise)
        yield
    finally:
        for number in ours:
            signal.signal(number, before[number])


def _raise(number: int, frame: object) -> None:
    """A second SIGTERM ends the program at once. A second SIGHUP is usual, for the shell sends one
    and the terminal another, and must not disturb what the first has begun."""
    again = signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN
    signal.signal(number, again)
    raise Stopped(number)


def stop_quietly() -> None:
    """If gammabeta is the program that was started: until its command line begins, Ctrl-C ends it
    in one line. It imports torch for seconds, and Python would print where in it it was."""
    first = sys.argv[0] if sys.argv else ""
    as_module = first == "-m" and "gammabeta" in sys.orig_argv
    as_script = Path(first).stem == "gammabeta" and first in sys.orig_argv
    if (
        (as_module or as_script)
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ):
        signal.signal(signal.SIGINT, _end)


def _end(number: int, frame: object) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"\n{STOPPED}\n".encode())
    os._exit(128 + number)
