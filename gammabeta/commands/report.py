"""`gammabeta report`: one page about all runs."""

import argparse
from pathlib import Path
from typing import Any

from gammabeta.arguments import add_command, add_runs_folder, finish, runs_folder
from gammabeta.errors import about


def add(commands: Any) -> None:
    parser = add_command(commands, "report", _report, "write one HTML page about all runs")
    add_runs_folder(parser)
    parser.add_argument(
        "--out", default="report.html", metavar="FILE", help="the page (report.html)"
    )
    finish(parser)


def _report(options: argparse.Namespace) -> None:
    from gammabeta.paper import PUBLISHED
    from gammabeta.report import check_out, write_report

    out = Path(options.out)
    with about("out"):
        check_out(out)
    with about("runs"):
        write_report(runs_folder(options), out, published=PUBLISHED)
    print(f"wrote {options.out}")
