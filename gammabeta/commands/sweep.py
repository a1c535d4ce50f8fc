"""`gammabeta sweep`: a run for each combination of values."""

import argparse
from typing import Any

from gammabeta.arguments import (
    add_command,
    add_members,
    add_seeds,
    add_spec,
    execution,
    finish,
    read_specs,
    runs_folder,
)
from gammabeta.errors import InputError, RunError


def add(commands: Any) -> None:
    text = "train one run for each combination of values, many in step where they can"
    parser = add_command(commands, "sweep", _sweep, text)
    add_members(parser)
    add_spec(parser)
    add_seeds(parser)
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument(
        "--dry-run", action="store_true", help="print which runs there would be, do not run"
    )
    finish(parser)


def _sweep(options: argparse.Namespace) -> None:
    if not options.members and "seeds" not in options:
        raise InputError("a sweep of what? write for example --members lr=0.01,0.1")
    if options.dry_run:
        _print_plan(options)
    else:
        train_many(options)


def _print_plan(options: argparse.Namespace) -> None:
    from gammabeta.display import print_plan
    from gammabeta.run import waiting
    from gammabeta.sweep import check_networks, teams

    specs, varied = read_specs(options)
    how = execution(options)
    runs = runs_folder(options)
    left = waiting(specs, runs)
    check_networks(left)
    chosen = {name: how[name] for name in ("engine", "device", "in_step") if name in how}
    print_plan(specs, teams(left, **chosen), varied, runs, options.json)


def train_many(options: argparse.Namespace) -> None:
    from gammabeta.display import print_sweep
    from gammabeta.listen import TrainDisplay
    from gammabeta.run import waiting
    from gammabeta.sweep import sweep

    specs, varied = read_specs(options)
    runs = runs_folder(options)
    failure = None
    with TrainDisplay(len(waiting(specs, runs))) as display:
        try:
            sweep(specs, **execution(options), listen=display)
        except RunError as error:  # what went well is shown before it
            failure = error
    print_sweep(specs, varied, runs, options.json)
    if failure is not None:
        raise failure
