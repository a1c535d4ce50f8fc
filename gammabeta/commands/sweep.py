"""`gammabeta sweep`: a run for each combination of values."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
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
from gammabeta.launch import check_alone


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
    from gammabeta.sweep import check_networks, teams, why_alone

    specs, varied = read_specs(options)
    how = execution(options)
    runs = runs_folder(options)
    left = waiting(specs, runs)
    check_networks(left)
    chosen = {name: how[name] for name in ("engine", "device") if name in how}
    planned = teams(left, **chosen, **{name: how[name] for name in ("in_step",) if name in how})
    print_plan(specs, planned, why_alone(planned, **chosen), varied, runs, options.json)


def train_many(options: argparse.Namespace) -> None:
    from gammabeta.display import print_sweep
    from gammabeta.listen import TrainDisplay
    from gammabeta.run import waiting
    from gammabeta.sweep import sweep

    check_alone("several runs are trained")
    specs, varied = read_specs(options)
    runs = runs_folder(options)
    failure = None
    left = {spec.id for spec in waiting(specs, runs)}
    done = [spec.id for spec in specs if spec.id not in left]
    with TrainDisplay(len(left), folders=[runs / name for name in left]) as display:
        if done:
            display.note(finished_note(done, len(specs), runs))
        try:
            sweep(specs, **execution(options), listen=display)
        except RunError as error:  # what went well is shown before it
            failure = error
    print_sweep(specs, varied, runs, options.json)
    if failure is not None:
        raise failure


def finished_note(done: Sequence[str], count: int, runs: Path) -> str:
    """Runs that are not trained because they have finished, `done` of `count`; how to have them
    trained again."""
    where = "" if str(runs) == "runs" else f" --runs {shlex.quote(str(runs))}"
    again = f"gammabeta runs rm {' '.join(done[:3])}{' ...' * (len(done) > 3)}{where}"
    if count == 1:
        return f"run {done[0]} finished earlier, nothing was trained; to train it again: {again}"
    which = f"all {count} runs" if len(done) == count else f"{len(done)} of {count} runs"
    return f"{which} finished earlier and are not trained; to train them again: {again}"
