"""`gammabeta runs`: list, show, remove."""

import argparse
import json
from typing import Any

from gammabeta.arguments import add_command, add_runs_folder, finish, runs_folder
from gammabeta.errors import InputError


def add(commands: Any) -> None:
    parser = add_command(commands, "runs", _runs, "list runs; runs show ID, runs rm ID")
    parser.add_argument("action", nargs="?", choices=["list", "show", "rm"], default="list")
    parser.add_argument("id", nargs="?", help="the run's id, or the start of it")
    add_runs_folder(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--tensors", action="store_true", help="show: every tensor, not only roles")
    finish(parser)


def _runs(options: argparse.Namespace) -> None:
    from gammabeta import display
    from gammabeta.store import find_run, list_runs

    root = runs_folder(options)
    if options.tensors and options.action != "show":
        raise InputError("--tensors belongs to gammabeta runs show ID: leave it out")
    if options.action == "list":
        if options.id is not None:
            raise InputError("runs list takes no id: write gammabeta runs show " + options.id)
        found = list_runs(root)
        if "runs" in options and not root.exists():
            raise InputError(f"{root} does not exist: name the folder of your runs", "runs")
        display.print_runs(found, root, options.json)
        return
    if options.id is None:
        raise InputError(f"which run? write gammabeta runs {options.action} ID")
    folder = find_run(root, options.id)
    if options.action == "show":
        if options.json:
            print(json.dumps(display.run_dict(folder, options.tensors), indent=1, sort_keys=True))
        else:
            display.print_run(folder, options.tensors)
        return
    folder.remove()
    print(json.dumps({"removed": folder.id}) if options.json else f"removed run {folder.id}")
