"""`gammabeta runs`: list, show, remove."""

import argparse
import json
from typing import Any

from gammabeta.arguments import add_command, add_runs_folder, finish, runs_folder
from gammabeta.errors import InputError, no_runs


def add(commands: Any) -> None:
    parser = add_command(commands, "runs", _runs, "list runs; runs show ID, runs rm ID [ID ...]")
    parser.add_argument(
        "action", nargs="?", choices=["list", "show", "rm"], default="list",
        help="what to do with them (default: list)",
    )  # fmt: skip
    parser.add_argument(
        "ids", nargs="*", metavar="ID", help="a run's id, or the start of it; rm takes several"
    )
    add_runs_folder(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--tensors", action="store_true", help="show: every tensor, not only roles")
    finish(parser)


def _runs(options: argparse.Namespace) -> None:
    from gammabeta import display
    from gammabeta.find import find_run
    from gammabeta.store import list_runs, remove_runs

    root, ids = runs_folder(options), options.ids
    if options.tensors and options.action != "show":
        raise InputError("--tensors belongs to gammabeta runs show ID: leave it out")
    if options.action == "list":
        if ids:
            raise InputError("runs list takes no id: write gammabeta runs show " + ids[0])
        found = list_runs(root, damaged=True)
        if "runs" in options and not root.exists():
            raise no_runs(root)
        display.print_runs(found, root, options.json)
        return
    if not ids:
        raise InputError(f"which run? write gammabeta runs {options.action} ID")
    if options.action == "show":
        if len(ids) > 1:
            raise InputError(f"runs show takes one id: write gammabeta runs show {ids[0]}")
        folder = find_run(root, ids[0])
        if options.json:
            print(json.dumps(display.run_dict(folder, options.tensors), indent=1, sort_keys=True))
        else:
            display.print_run(folder, options.tensors)
        return
    chosen = {run.id: run for run in [find_run(root, each, damaged=True) for each in ids]}
    remove_runs(list(chosen.values()))
    if options.json:
        print(json.dumps({"removed": list(chosen)}))
    else:
        print(*(f"removed run {name}" for name in chosen), sep="\n")
