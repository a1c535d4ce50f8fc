"""The tables of the README and of docs/, from results/ and from the networks' plans.

    python benchmarks/tables.py [--check]

Each stands between two comments, `<!-- begin NAME -->` and `<!-- end NAME -->`, and is written
anew; --check only says whether the pages are as they would be written. A table whose file is not
there says that it was not measured, and how to measure it.
"""

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pieces import table, where
from tables_cifar10 import cifar10, random_weights
from tables_compact import compact_latency, compact_networks, compact_pruning
from tables_images import imagenette, loader
from tables_speed import floors, gpu, loss_cpu, loss_double, members_cpu, speed_cpu
from tables_tasks import tasks

from gammabeta.analysis import in_percent
from gammabeta.bench.show import number
from gammabeta.spec import RunSpec

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = (DOCS / "performance.md", DOCS / "deltas.md", DOCS / "tune.md", DOCS / "compact.md",
         ROOT / "README.md")  # fmt: skip
RESULTS = ROOT / "results"

CIFAR10 = "benchmarks/keep_results.py RUNS results/cifar10.json --data cifar10"
COMPACT = "benchmarks/compact.py --runs RUNS --ids ID ID --out results/compact.json --data-dir DIR"


def bank_cpu(results: Path) -> str:
    found = json.loads((results / "bank.json").read_text())
    body = [
        [
            f"{row['tasks']} tasks, {row['how']}" if row["tasks"] > 1 else f"1 task, {row['how']}",
            number(row["median_ms"], 3),
            f"{number(row['low_ms'], 3)}-{number(row['high_ms'], 3)}",
            number(row["held_bytes"] / 1000, 3),
            number(row["peak_bytes"] / 2**20, 3),
        ]
        for row in found["rows"]
    ]
    switch = found["activate"]
    head = ["a batch of all", "ms", "least-most", "kB beside the network", "MiB for a pass"]
    return (
        f"{found['model']}, `{found['trainable']}`, {found['batch']} images of {found['size']} "
        f"pixels, median of {found['rows'][0]['repeats']}. {where(found['environment'])}\n\n"
        f"{table(head, body)}\n\n"
        f"One `activate`: {number(switch['median_us'], 3)} us "
        f"({number(switch['low_us'], 3)}-{number(switch['high_us'], 3)}). A delta's file: "
        f"{switch['file_bytes']:,} bytes; the network: {switch['network_bytes']:,} bytes."
    )


def bank_held(results: Path) -> str:
    """Of bank_cpu what a choice depends on: kilobytes, and time."""
    found: dict[int, dict[str, dict[str, Any]]] = {}
    for row in json.loads((results / "bank.json").read_text())["rows"]:
        found.setdefault(row["tasks"], {})[row["how"]] = row
    one, each, whole = "one mixed pass", "switch and run each task", "a network for each task"
    body = [
        [
            f"{count}",
            number(rows[one]["held_bytes"] / 1000, 3),
            number(rows[whole]["held_bytes"] / 1000, 3),
            number(rows[one]["median_ms"], 3),
            number(rows[each]["median_ms"], 3),
            number(rows[whole]["median_ms"], 3),
        ]
        for count, rows in found.items()
    ]
    head = ["tasks", "bank, kB", "networks, kB", "mixed pass, ms", "switching, ms", "networks, ms"]
    return table(head, body)


def tune(results: Path) -> str:
    """What `gammabeta tune` found: a row a subset, held out accuracy by rate, then the test."""
    runs = json.loads((results / "tune.json").read_text())
    rates = sorted({run["spec"]["lr"] for run in runs})
    body = []
    for name in dict.fromkeys(run["spec"]["trainable"] for run in runs):
        own = [run for run in runs if run["spec"]["trainable"] == name]
        tested = {
            run["spec"]["lr"]: in_percent(run["result"]["test_accuracy"])
            for run in own
            if not run["spec"].get("validation")
        }
        tried = {
            run["spec"]["lr"]: in_percent(run["result"]["test_accuracy"])
            for run in own
            if run["spec"].get("validation")
        }
        body.append([
            f"`{name}`", f"{own[0]['subset']['trained']:,}",
            *(tried.get(rate, "-") + "*" * (rate in tested) for rate in rates),
            ", ".join(tested.values()) or "-",
        ])  # fmt: skip
    final = next(run for run in runs if not run["spec"].get("validation"))
    spec, data = RunSpec.from_dict(final["spec"]), final["data"]
    head = ["what trains", "values", *(f"lr {rate:g}" for rate in rates), "test accuracy, %"]
    return (
        f"{spec.model}, {spec.epochs} epochs, batch {spec.batch_size}, {spec.precision}, images of "
        f"{spec.image_size} pixels; {data['train']:,} training and {data['test']:,} test images. "
        f"{where(final['sessions'][-1])}\n\n{table(head, body)}"
    )


# name -> (the table, how to measure what it shows)
TABLES: dict[str, tuple[Callable[[Path], str], str]] = {
    "floors": (floors, ""),
    "speed_cpu": (speed_cpu, "benchmarks/speed.py --out results/speed_cpu.json"),
    "members_cpu": (members_cpu, "benchmarks/members.py --out results/members_cpu.json"),
    "bank_cpu": (bank_cpu, "benchmarks/bank.py --out results/bank.json"),
    "bank_held": (bank_held, "benchmarks/bank.py --out results/bank.json"),
    "tasks": (
        tasks, "benchmarks/tasks.py --out results/tasks.json --data-dir DIR --deltas FOLDER"
    ),
    "tune": (tune, "benchmarks/keep_results.py RUNS results/tune.json"),
    "loss_cpu": (loss_cpu, "benchmarks/loss.py --out results/loss_cpu.json --data-dir DIR"),
    "loss_double": (
        loss_double,
        "benchmarks/loss.py --double --steps 100 --out results/loss_double.json --data-dir DIR",
    ),
    "cifar10": (cifar10, CIFAR10),
    "random_weights": (random_weights, CIFAR10),
    "loader": (loader, "benchmarks/loader.py --out results/loader.json --data-dir DIR"),
    "imagenette": (
        imagenette, "benchmarks/keep_results.py RUNS results/imagenette.json --data imagenet"
    ),
    "compact_networks": (compact_networks, COMPACT),
    "compact_pruning": (compact_pruning, COMPACT),
    "compact_latency": (compact_latency, COMPACT),
    "gpu": (gpu, "benchmarks/gpu.py --out results/gpu.json --data-dir DIR"),
}  # fmt: skip


def render(text: str, results: Path = RESULTS) -> str:
    """The page with every table written anew."""

    def one(match: re.Match[str]) -> str:
        name = match[1]
        draw, command = TABLES[name]
        try:
            body = draw(results)
        except FileNotFoundError:
            body = f"Not measured yet: `python {command}`."
        return f"<!-- begin {name} -->\n{body}\n<!-- end {name} -->"

    return re.sub(r"<!-- begin (\w+) -->\n.*?<!-- end \1 -->", one, text, flags=re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if it differs")
    options = parser.parse_args()
    for page in PAGES:
        old = page.read_text(encoding="utf-8")
        new = render(old)
        if options.check and new != old:
            raise SystemExit(f"{page} is not as it would be written")
        page.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
