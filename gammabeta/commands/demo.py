"""`gammabeta demo`: the demonstration and its report."""

import argparse
import sys
from pathlib import Path
from typing import Any

from gammabeta.arguments import REPLACED, add_command, add_execution, execution, finish, runs_folder
from gammabeta.commands.sweep import finished_note
from gammabeta.disk import replaces
from gammabeta.errors import about
from gammabeta.launch import check_alone


def add(commands: Any) -> None:
    text = "train eight subsets on embedded digits and write report.html"
    parser = add_command(commands, "demo", _demo, text)
    add_execution(parser)
    parser.add_argument(
        "--out", default="report.html", metavar="FILE", help=f"the page; {REPLACED}"
    )
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    finish(parser)


def _demo(options: argparse.Namespace) -> None:
    from gammabeta import demo
    from gammabeta.display import print_demo
    from gammabeta.listen import TrainDisplay
    from gammabeta.report import check_out, write_report
    from gammabeta.run import train

    check_alone("the demo runs")
    with about("out"):
        check_out(Path(options.out))
    specs = demo.demo_specs()
    trained = []
    with TrainDisplay(labels=tuple(spec.trainable for spec in specs)) as display:
        for spec in specs:
            display.next_run()
            trained.append(train(spec, **execution(options), listen=display))
        if not display.work_began:
            ids = [run.id for run in trained]
            display.note(finished_note(ids, len(ids), runs_folder(options)))
    print_demo(trained, options.json)
    note = replaces(Path(options.out))
    write_report([run.folder for run in trained], Path(options.out))
    print(f"wrote {options.out}{note}", file=sys.stderr)
