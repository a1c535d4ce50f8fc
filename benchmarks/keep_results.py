"""Finished runs to results/: what was measured, with spec, hardware, versions and commit.

    python benchmarks/keep_results.py RUNS results/NAME.json [--data cifar10]

Keeps for every finished run its spec, its session, the data's sha256, the result, the learning
curve, and what its probes found in all, sorted so that a second call changes nothing.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from gammabeta.analysis import run_rows
from gammabeta.store import RunFolder, list_runs

CURVE = ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "small_gammas")
ORDER = ("epochs", "model", "trainable", "norm_init", "weight_init", "lr", "seed")
PROBES = ("gammas", "clamp", "activity")


def kept(run: RunFolder) -> dict[str, Any]:
    """What results/ keeps of one run."""
    records = run.metrics()
    probes = {name: found for name in PROBES if (found := run.probe(name)) is not None}
    return {
        "id": run.id,
        "spec": run.spec,
        "data": run.inputs["data"],
        "subset": run.inputs["subset"],
        "sessions": run.env["sessions"],
        "result": run.result,
        "curve": {name: [round(record[name], 5) for record in records] for name in CURVE},
        "probes": {name: probe(found) for name, found in probes.items()},
    }


def probe(found: dict[str, Any]) -> dict[str, Any]:
    """The whole network's numbers, and the clamp curve; layers stay with the run."""
    names = ("made_from", "asked", "summary", "points", "environment")
    kept = {name: found[name] for name in names if name in found}
    if found["probe"] == "gammas":
        kept["asked"] = {}  # its many thresholds say nothing here
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", help="runs on this data set only")
    options = parser.parse_args()
    runs = [run for run in list_runs(options.runs) if run.status == "ok"]
    runs = [run for run in runs if options.data in (None, run.spec["data"])]
    runs.sort(key=lambda run: json.dumps([run.spec[name] for name in ORDER]))
    options.out.write_text(json.dumps([kept(run) for run in runs], indent=1) + "\n")
    for row in run_rows(runs):
        told = f"{row.model} {row.trainable:12} seed {row.seed} {row.epochs} epochs"
        print(f"{told} {row.test_accuracy:.2%}")


if __name__ == "__main__":
    main()
