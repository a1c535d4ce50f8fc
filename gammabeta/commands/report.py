"""`gammabeta report`: one page about all runs."""

import argparse
import sys
from pathlib import Path
from typing import Any

from gammabeta.arguments import REPLACED, add_command, add_runs_folder, finish, runs_folder
from gammabeta.disk import replaces
from gammabeta.errors import InputError, about


def add(commands: Any) -> None:
    parser = add_command(commands, "report", _report, "write one HTML page about all runs")
    add_runs_folder(parser)
    parser.add_argument(
        "--out", default="report.html", metavar="FILE", help=f"the page; {REPLACED}"
    )
    parser.add_argument(
        "--figures", metavar="DIR",
        help="also write, into this folder, the figures of the paper's experiments as SVG and PDF "
        "and the numbers behind them as JSON, from the runs alone: no data is read, nothing "
        "trains (default: none)",
    )  # fmt: skip
    finish(parser)


def _report(options: argparse.Namespace) -> None:
    from gammabeta.analysis import counted
    from gammabeta.paper import PUBLISHED
    from gammabeta.report import check_out, write_report
    from gammabeta.reproduce import check_out as check_folder
    from gammabeta.reproduce import write_all

    out = Path(options.out)
    with about("out"):
        check_out(out)
    folder = None if options.figures is None else Path(options.figures)
    if folder is not None:
        check_folder(folder, "figures")
    note, runs = replaces(out), runs_folder(options)
    broken = _unreadable(runs)
    with about("runs"):
        write_report(runs, out, published=PUBLISHED)
    for each in broken:
        print(f"note: a run is left out: {each}", file=sys.stderr)
    print(f"wrote {options.out}{note}")
    if folder is not None:
        files = write_all(runs, folder)
        names = ", ".join(file.name for file in files)
        print(f"wrote {counted(len(files), 'file')} into {folder}: {names}")


def _unreadable(runs: Path) -> list[str]:
    """Why runs cannot be in the page at all, a line each. Raises InputError if that is all runs."""
    from gammabeta.store import list_runs

    found = [run.damage for run in list_runs(runs, damaged=True)]
    broken = [damage for damage in found if damage is not None]
    if broken and len(broken) == len(found):
        more = f" (and {len(broken) - 1} more)" if broken[1:] else ""
        raise InputError(f"no run in {runs} can be read: {broken[0]}{more}", "runs")
    return broken
