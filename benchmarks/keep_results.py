"""Finished runs to results/: what was measured, with spec, hardware, versions and commit.

    python benchmarks/keep_results.py RUNS results/NAME.json

Keeps for every finished run its spec, its session, the data's sha256, the result and the learning
curve, sorted so that a second call changes nothing.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from gammabeta.analysis import run_rows
from gammabeta.store import RunFolder, list_runs

CURVE = ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "small_gammas")


def kept(run: RunFolder) -> dict[str, Any]:
    """What results/ keeps of one run."""
    records = run.metrics()
    return {
        "id": run.id,
        "spec": run.spec,
        "data": run.inputs["data"],
        "subset": run.inputs["subset"],
        "sessions": run.env["sessions"],
        "result": run.result,
        "curve": {name: [round(record[name], 5) for record in records] for name in CURVE},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    runs = [run for run in list_runs(options.runs) if run.status == "ok"]
    runs.sort(key=lambda run: (run.spec["epochs"], run.spec["trainable"], run.spec["seed"]))
    options.out.write_text(json.dumps([kept(run) for run in runs], indent=1) + "\n")
    for row in run_rows(runs):
        print(f"{row.trainable:12} seed {row.seed} {row.epochs} epochs {row.test_accuracy:.2%}")


if __name__ == "__main__":
    main()
