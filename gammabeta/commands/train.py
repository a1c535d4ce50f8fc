"""`gammabeta train`: one run, or one for each seed."""

import argparse
import json
from typing import Any

from gammabeta.arguments import (
    add_command,
    add_seeds,
    add_spec,
    execution,
    finish,
    read_spec,
    runs_folder,
)
from gammabeta.commands.sweep import finished_note, train_many
from gammabeta.errors import InputError
from gammabeta.launch import launched
from gammabeta.parser import as_flag


def add(commands: Any) -> None:
    parser = add_command(commands, "train", _train, "train one run, or resume it")
    add_spec(parser)
    add_seeds(parser)
    parser.set_defaults(members=[])
    parser.add_argument(
        "--sync-bn",
        action=argparse.BooleanOptionalAction,
        default=argparse.SUPPRESS,
        help="of several processes: whether BatchNorm sees the whole batch, or each its share, "
        "which is another run (default: on)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "--print-spec", action="store_true", help="print the resolved spec and its id, do not run"
    )
    finish(parser)


def _train(options: argparse.Namespace) -> None:
    rank, count = launched()
    if "sync_bn" in options:
        _share_norms(options, count)
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

    if rank > 0:  # the first process says what there is to say
        train(spec, **execution(options))
        return
    with TrainDisplay() as display:
        run = train(spec, **execution(options), listen=display)
        if not display.work_began:
            display.note(finished_note([run.id], 1, runs_folder(options)))
    if options.json:
        print(json.dumps(result_dict(run), indent=1))
    else:
        print_result(run)


def _share_norms(options: argparse.Namespace, processes: int) -> None:
    """--sync-bn in the words of a spec: it changes the numbers, so it is part of what a run is."""
    if "norm_shares" in options:
        raise InputError("--sync-bn and --norm-shares say the same: write one of them")
    if not options.sync_bn and processes == 1:
        raise InputError(
            "--no-sync-bn is for several processes, and this is one: leave it out, or start them "
            "with torchrun --nproc-per-node N -m gammabeta train"
        )
    options.norm_shares = 1 if options.sync_bn else processes
