"""The command line: arguments.py reads flags, commands/ has a module a command, display.py prints.

Exit codes: 0 done; 2 bad input (one line on stderr that says what to write instead, nothing
created); 1 it failed while running; 130 stopped by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP, as when
the terminal closes (everything can be resumed).
"""

import argparse
import contextlib
import importlib
import os
import signal
import sys
import warnings
from typing import Any

import gammabeta
from gammabeta.arguments import with_source
from gammabeta.commands import (
    analyze,
    bench,
    compact,
    delta,
    demo,
    export,
    models,
    report,
    reproduce,
    run_info,
    runs,
    sweep,
    train,
    tune,
)
from gammabeta.errors import GammabetaError, InputError
from gammabeta.launch import launched
from gammabeta.parser import Parser
from gammabeta.stops import STOPPED, Stopped, as_ctrl_c

# In the order of --help.
COMMANDS = (
    demo, train, sweep, tune, reproduce, runs, models, analyze, report, compact, export, delta,
    run_info, bench,
)  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = argparse.Namespace()
    try:
        options = _parser().parse_args(arguments)
        if options.command is None:
            _parser().print_help()
            return 0
        # It takes seconds and is no work that has to be ended well: Ctrl-C ends it here (stops.py).
        importlib.import_module("torch")
        with as_ctrl_c():
            with warnings.catch_warnings():
                warnings.showwarning = _printer()
                command = options.command
                command(options)
            sys.stdout.flush()
    except InputError as error:
        return _fail(with_source(error, vars(options)), 2)
    except GammabetaError as error:
        return _fail(error, 1)
    except KeyboardInterrupt as stop:
        with contextlib.suppress(OSError):  # the terminal may be what has gone
            print(f"\n{STOPPED}", file=sys.stderr)
        return 128 + (stop.number if isinstance(stop, Stopped) else signal.SIGINT)
    except BrokenPipeError:  # the reader of a pipe has gone; nothing is left to say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _fail(f"{type(error).__name__}: {error}", 1)
    return 0


def _fail(error: object, code: int) -> int:
    if _is_follower() and not getattr(error, "speaks", False):
        return code
    line = " ".join(str(error).split())
    if len(line) > 700:  # somebody's endless number or name, not ours
        line = f"{line[:450]} ... {line[-200:]}"
    print(f"gammabeta: {line}", file=sys.stderr)
    return code


def _printer() -> Any:
    """What prints warnings, each once: a network that is checked and then built gives two."""
    said: set[str] = set()

    def show(message: Warning | str, *_: Any) -> None:
        if str(message) not in said and not _is_follower():
            print(f"gammabeta: note: {message}", file=sys.stderr)
        said.add(str(message))

    return show


def _is_follower() -> bool:
    """Whether another process says what there is to say: the first that torchrun started."""
    try:
        return launched()[0] > 0
    except InputError:  # which is said
        return False


def _parser() -> Parser:
    parser = Parser(prog="gammabeta", description=gammabeta.__doc__, allow_abbrev=False)
    parser.set_defaults(known_flags=["--help", "--version"])
    parser.add_argument("--version", action="version", version=gammabeta.__version__)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=Parser)
    parser.set_defaults(command=None)
    for command in COMMANDS:
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
