"""Finished runs to results/: what was measured, with spec, hardware, versions and commit.

    python benchmarks/keep_results.py RUNS results/NAME.json [--picture docs/subsets.svg]

Keeps for every finished run its spec, its session, the data's sha256, the result and the learning
curve, sorted so that a second call changes nothing. The picture is the accuracy by subset of the
runs with the most common recipe.
"""

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from gammabeta.analysis import group_rows, run_rows
from gammabeta.figures import accuracy_bars, styles, svg_text
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
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    runs = [run for run in list_runs(options.runs) if run.status == "ok"]
    runs.sort(key=lambda run: (run.spec["epochs"], run.spec["trainable"], run.spec["seed"]))
    options.out.write_text(json.dumps([kept(run) for run in runs], indent=1) + "\n")
    if options.picture:
        epochs = Counter(run.spec["epochs"] for run in runs).most_common(1)[0][0]
        rows = run_rows(run for run in runs if run.spec["epochs"] == epochs)
        groups = group_rows(rows)
        look = styles(group.trainable for group in groups)
        figure = accuracy_bars(groups, look, chance=0.1)
        options.picture.write_text(svg_text(figure))
    for row in run_rows(runs):
        print(f"{row.trainable:12} seed {row.seed} {row.epochs} epochs {row.test_accuracy:.2%}")


if __name__ == "__main__":
    main()
