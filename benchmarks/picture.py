"""The README's picture, drawn from a file of results/: test accuracy by what was trained.

python benchmarks/picture.py results/demo_digits.json docs/subsets.svg
"""

import argparse
import json
from pathlib import Path
from typing import Any

from gammabeta.analysis import GroupRow, spread
from gammabeta.figures import accuracy_bars, styles, svg_text


def group(trainable: str, runs: list[dict[str, Any]]) -> GroupRow:
    """All seeds of one subset, from what results/ keeps of its runs."""
    subset = runs[0]["subset"]
    return GroupRow(
        trainable=trainable,
        trained=subset["trained"],
        total=subset["total"],
        share=subset["trained"] / subset["total"],
        n=len(runs),
        unfinished=0,
        test_accuracy=spread(run["result"]["test_accuracy"] for run in runs),
        test_top5=None,
        small_gammas=spread(run["result"]["small_gammas"] for run in runs),
        seconds=spread(run["result"]["seconds"] for run in runs),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    runs = json.loads(options.results.read_text())
    names = dict.fromkeys(run["spec"]["trainable"] for run in runs)
    groups = [
        group(name, [run for run in runs if run["spec"]["trainable"] == name]) for name in names
    ]
    groups.sort(key=lambda each: (each.trained or 0, each.trainable))
    figure = accuracy_bars(groups, styles(names), chance=0.1)
    # The page around a README may be dark: the picture brings its own paper.
    head, tag, rest = svg_text(figure).partition("<svg")
    opening, end, body = rest.partition(">")
    paper = '<rect width="100%" height="100%" fill="white"/>'
    options.out.write_text(f"{head}{tag}{opening}{end}\n {paper}{body}")


if __name__ == "__main__":
    main()
