"""`gammabeta train`: one run, or one for each seed."""

import argparse
import json
from typing import Any

from gammabeta.arguments import (
    add_command,
    add_seeds,
    add_spec,
    as_flag,
    execution,
    finish,
    read_spec,
    runs_folder,
)
from gammabeta.commands.sweep import finished_note, train_many
from gammabeta.errors import InputError


def add(commands: Any) -> None:
    parser = add_command(commands, "train", _train, "train one run, or resume it")
    add_spec(parser)
    add_seeds(parser)
    parser.set_defaults(members=[])
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "--print-spec", action="store_true", help="print the resolved spec and its id, do not run"
    )
    finish(parser)


def _train(options: argparse.Namespace) -> None:
    if "seeds" in options and not options.print_spec:
        train_many(options)
        return
    if "seeds" in options:
        raise InputError("--print-spec prints one spec: leave out --seeds, or write --seed")
    if "in_step" in options:
        raise InputError("--in-step belongs to several runs: leave it out, or write --seeds")
    spec = read_spec(options)
    if options.print_spec:
        from gammabeta.build import check_network

        if idle := ", ".join(as_flag(name) for name in execution(options)):
            raise InputError(f"--print-spec runs nothing: leave out {idle}")
        check_network(spec)
        shown = json.dumps(spec.to_dict(), indent=1, sort_keys=True)
        print(shown if options.json else f"id {spec.id}\n{shown}")
        return
    from gammabeta.display import print_result, result_dict
    from gammabeta.listen import TrainDisplay
    from gammabeta.run import train

    with TrainDisplay() as display:
        run = train(spec, **execution(options), listen=display)
        if not display.work_began:
            display.note(finished_note([run.id], 1, runs_folder(options)))
    if options.json:
        print(json.dumps(result_dict(run), indent=1))
    else:
        print_result(run)
