"""`gammabeta delta`: what a finished run trained, as one small file."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from gammabeta.arguments import REPLACED, add_command, add_runs_folder, finish, runs_folder
from gammabeta.disk import check_file, replaces


def add(commands: Any) -> None:
    text = "write what a finished run trained into one small file"
    parser = add_command(commands, "delta", _delta, text)
    parser.add_argument("id", metavar="RUN", help="the run's id, or the start of it")
    parser.add_argument("file", metavar="FILE", help=f"for example task.delta; {REPLACED}")
    add_runs_folder(parser)
    parser.add_argument("--json", action="store_true", help="print what is in it as JSON")
    finish(parser)


def _delta(options: argparse.Namespace) -> None:
    from gammabeta.commands.run_info import print_delta
    from gammabeta.delta import save_delta
    from gammabeta.run import load_run
    from gammabeta.subset import select

    path = Path(options.file)
    check_file(path, "task.delta")  # before the work of rebuilding a network
    run = load_run(options.id, runs_folder(options))
    accuracy, spec = run.accuracy, run.spec
    network = run.network()
    subset = select(network, spec.trainable, seed=spec.seed, statistics=spec.statistics)
    info = {"run": run.id, "test_accuracy": accuracy, "spec": spec.to_dict()}
    note = replaces(path)
    delta = save_delta(network, subset, path, info=info)
    print(f"wrote {path}{note}", file=sys.stderr)
    if options.json:
        size = path.stat().st_size
        print(json.dumps({"path": str(path), "bytes": size, **delta.describe()}, indent=1))
    else:
        print_delta(delta, path)
