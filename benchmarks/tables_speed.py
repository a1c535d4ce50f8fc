"""The tables of docs/performance.md on steps: floors, speed, members, losses."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pieces import table, where

from gammabeta.bench import CONVOLUTIONS
from gammabeta.bench.show import number
from gammabeta.fused.plan import make_plan
from gammabeta.models import architecture
from gammabeta.names import readable

DEPTHS = (14, 110, 866)
# Of an H100 (SXM), from its data sheet: bytes a second, and dense bf16 operations a second.
SHEET_BYTES, SHEET_OPERATIONS = 3.35e12, 989e12


def floors(results: Path) -> str:
    """Counted: a step of batch 128 in bf16."""
    rows = []
    for depth in DEPTHS:
        plan = make_plan(architecture(f"cifar_resnet_{depth}"))
        operations, moved = plan.operations(128), plan.moved_bytes(128, 2)
        rows.append([
            f"ResNet-{depth}",
            number(operations / 1e9, 4),
            number(moved / 1e9, 3),
            number(plan.saved_bytes(128, 2) / 2**20, 4),
            number(operations / SHEET_OPERATIONS * 1000, 2),
            number(moved / SHEET_BYTES * 1000, 2),
        ])  # fmt: skip
    return table(
        ["batch 128, bf16", "GFLOP a step", "GB moved", "MiB kept", "ms of operations, H100 sheet",
         "ms of bytes, H100 sheet"], rows
    )  # fmt: skip


def speed(groups: Sequence[dict[str, Any]]) -> str:
    """One table a network and subset, with both precisions in a row."""
    parts = []
    for group in groups:
        rows: dict[str, dict[str, Any]] = {}
        for row in group["rows"]:
            rows.setdefault(row["contender"], {})[row["precision"]] = row
        precisions = sorted({row["precision"] for row in group["rows"]}, reverse=True)
        head = ["contender"]
        for each in precisions:
            head += [f"{each} ms", "least-most", "times as fast", "x floor", "kept MiB"]
            head += ["peak MiB"] if group["peak"] else []
            head += ["first step s"]
        body = [
            [name, *(cell for each in precisions for cell in speed_cells(found.get(each), group))]
            for name, found in rows.items()
        ]
        size = f"images of {group['image']} x {group['image']}"
        title = f"**{group['model']}, `{group['trainable']}`**, batch {group['batch']}, {size}."
        copy = f" A copy moves {group['copy_gb_s']:g} GB/s." if group["copy_gb_s"] else ""
        parts += [f"{title} {where(group['environment'])}{copy}", table(head, body)]
        parts += [
            f"{row['contender']} {row['precision']} does not count: {row['wrong'] or row['error']}"
            for row in group["rows"]
            if row["wrong"] or row["error"]
        ]
    return "\n\n".join(parts)


def speed_cells(row: dict[str, Any] | None, group: dict[str, Any]) -> list[str]:
    width = 7 if group["peak"] else 6
    if row is None or row["median_ms"] is None or row["wrong"] or row["error"]:
        return ["-"] * width
    spread = f"{number(row['min_ms'], 3)}-{number(row['max_ms'], 3)}"
    cells = [number(row["median_ms"], 3), spread, number(row["ratio"] and row["ratio"][0], 3)]
    cells += [number(row["distance"], 3)]
    kinds = ("saved_bytes", "peak_bytes") if group["peak"] else ("saved_bytes",)
    cells += [number(row[kind] and row[kind] / 2**20, 3) for kind in kinds]
    first = None if row["contender"] == CONVOLUTIONS else row["compile_s"]
    return [*cells, number(first, 2)]


def members(rows: Sequence[dict[str, Any]]) -> str:
    body = [
        [
            f"{row['model']}, {row['kind']}, {row['precision']}, {row['how']}",
            number(row["median_ms"], 3),
            f"{number(row['min_ms'], 3)}-{number(row['max_ms'], 3)}",
            number(row["median_ms"] / row["members"], 3),
            number(row["ratio"][0], 3) + (" (wrong)" if row["wrong"] else ""),
        ]
        for row in rows
    ]
    return table(["a step of all", "ms", "least-most", "ms a member", "times as fast"], body)


def speed_cpu(results: Path) -> str:
    return speed(json.loads((results / "speed_cpu.json").read_text())["groups"])


def members_cpu(results: Path) -> str:
    found = json.loads((results / "members_cpu.json").read_text())
    return f"{where(found['environment'])}\n\n{members(found['rows'])}"


def loss_cpu(results: Path) -> str:
    return _losses(json.loads((results / "loss_cpu.json").read_text()))


def loss_double(results: Path) -> str:
    return _losses(json.loads((results / "loss_double.json").read_text()))


def _losses(found: dict[str, Any]) -> str:
    body = [
        [
            f"{row['kind']}: {row['what']} {row['precision']}",
            f"{row['mean_last']:.4f}",
            off(row["mean_last_off"]),
            f"{row['end']:.4f}",
            off(row["end_off"]),
        ]
        for row in found["rows"]
    ]
    last, steps = found["last"], found["steps"]
    head = ["", f"mean of the last {last} steps", "off", f"step {steps}", "off"]
    what = f"{found['model']}, `{found['trainable']}`, batch {found['batch']}, {found['data']}."
    tail = []
    if any(row["kind"] == "another order" for row in found["rows"]):
        spread = noise(found, "another order")
        tail.append(f"Standard deviation over the orders of the data: {spread}.")
    if sum(row["kind"] == "other rounding" for row in found["rows"]) > 1:
        tail += [f"Over roundings: {noise(found, 'other rounding')}."]
    return (
        f"{what} {where(found['environment'])}\n\n{table(head, body)}\n\n{' '.join(tail)}".rstrip()
    )


def off(share: float) -> str:
    """Percent, or a power of ten where that would be shown as nothing."""
    return f"{share:+.0e}" if 0 < abs(share) < 5e-5 else f"{share:+.2%}"


def noise(found: dict[str, Any], kind: str) -> str:
    """How far the judge and its repetitions of one kind are from each other."""
    means = [row["mean_last"] for row in found["rows"] if row["kind"] in ("judge", kind)]
    return f"{statistics.stdev(means) / statistics.fmean(means):.2%} of the mean"


def gpu(results: Path) -> str:
    """What benchmarks/gpu.py wrote: checks, steps, members, runs. Parts of a result stay out."""
    found = json.loads((results / "gpu.json").read_text())
    failed = [
        f"{part}, {piece}: {each['error']}"
        for part, pieces in found.items()
        for piece, each in pieces.items()
        if "error" in each
    ]
    done = {
        part: {piece: each for piece, each in pieces.items() if "result" in each}
        for part, pieces in found.items()
    }
    parts = []
    if done.get("check"):
        good: dict[str, list[bool]] = {}
        for each in done["check"].values():
            for row in each["result"]:
                if "refused" not in row:
                    good.setdefault(row["engine"], []).append(row["good"])
        told = "; ".join(f"{name}: {sum(all_)} of {len(all_)}" for name, all_ in good.items())
        parts.append(f"Checks against the CPU that hold: {told}. {where(each['environment'])}")
    groups = [
        each["result"] for part in ("steps", "compiled") for each in done.get(part, {}).values()
    ]
    if groups:
        parts.append(speed(groups))
    estimated = [group for group in groups if group.get("estimate", {}).get("minutes")]
    if estimated:
        body = [
            [f"{readable(group['model'])}, `{group['trainable']}`, {name}", number(minutes, 3)]
            for group in estimated
            for name, minutes in group["estimate"]["minutes"].items()
        ]
        what = estimated[0]["estimate"]["what"]
        parts.append(f"Minutes of a run: {what}.\n\n{table(['estimated', 'minutes'], body)}")
    if done.get("members"):
        rows = [
            row | {"kind": piece.split(", ")[1]}
            for piece, each in done["members"].items()
            for row in each["result"]
        ]
        parts.append(members(rows))
    for each in done.get("runs", {}).values():
        names = ("model", "trainable", "seed", "engine", "status", "test_accuracy", "seconds")
        body = [[str(row.get(name, "-")) for name in names] for row in each["result"]]
        parts.append(table([*names[:-1], "s of the last epoch"], body))
    return "\n\n".join([*parts, *failed])
