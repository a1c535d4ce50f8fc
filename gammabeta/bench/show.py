"""The result of `measure` for a reader: a table, and what it means in a few lines."""

import statistics
from typing import Any

from rich.table import Table

from gammabeta.bench.contenders import BASE, CONTENDERS
from gammabeta.bench.floors import CONVOLUTIONS

_COLUMNS = ("ms a step", "least", "most", "images/s", f"x {BASE} fp32", "kept MiB", "peak MiB",
            "x floor", "first step s")  # fmt: skip

UNEVEN = 1.25  # from here on it is said; on two idle cores it is mostly below 1.15


def bench_table(result: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("contender")
    table.add_column("precision")
    for column in _COLUMNS:
        table.add_column(column, justify="right")
    for row in result["rows"]:
        table.add_row(row["contender"], row["precision"], *cells(row))
    return table


def cells(row: dict[str, Any]) -> list[str]:
    """One row's cells, or a dash for what was not measured, in the order of the columns."""
    ratio = [number(each, 3) for each in row["ratio"] or [None]]
    return [
        *(number(row[key], 4) for key in ("median_ms", "min_ms", "max_ms")),
        number(row["images_per_second"], 4),
        ratio[0] if len(ratio) == 1 else f"{ratio[0]} ({ratio[1]} to {ratio[2]})",
        *(number(row[key] and row[key] / 2**20, 4) for key in ("saved_bytes", "peak_bytes")),
        number(row["distance"], 3),
        number(row["compile_s"], 2),
    ]


def number(value: float | None, digits: int) -> str:
    """With `digits` significant digits, and never as a power of ten."""
    if value is None:
        return "-"
    text = f"{value:.{digits}g}"
    return f"{float(text):,.0f}" if abs(float(text)) >= 10 ** (digits - 1) else text


def bench_lines(result: dict[str, Any]) -> list[str]:
    """What was measured, and how to read the table."""
    where = result["environment"]
    names = dict.fromkeys(row["contender"] for row in result["rows"])
    threads = f"{where['threads']} thread{'' if where['threads'] == 1 else 's'}"
    lines = [
        f"{result['model']}, {result['trainable']}, batch {result['batch']}, images of "
        f"{result['image']} x {result['image']}; {where['hardware']}, {threads}, "
        f"torch {where['torch']}",
        *(f"{name:18} {CONTENDERS[name].what}" for name in names if name in CONTENDERS),
        f"{CONVOLUTIONS:18} the network's convolutions alone, forward and gradients",
    ]
    if result["moved_bytes"] and result["copy_gb_s"] and any(result["moved_bytes"].values()):
        floor = f"then its bytes at the {result['copy_gb_s']:g} GB/s of a copy"
        lines.append(f"{'floor':18} the convolutions alone, {floor}")
    else:
        lines.append(f"{'floor':18} the convolutions alone")
    lines.append(
        f"x {BASE} fp32: as many times as fast, round by round: the median (least to most)."
    )
    lines.append("A step: forward, backward, optimizer, on a batch that is ready on the device.")
    if result.get("slow"):
        lines.append(f"lean and fused lacked what is compiled for a machine: {result['slow']}.")
    if (apart := uneven(result)) >= UNEVEN:
        lines.append(
            f"The median round took {number(apart, 3)} times as long as the fastest: this machine "
            "had other work to do. Go by the ratios, which compare within a round."
        )
    if result["peak"]:
        lines.append(f"Peak: {result['peak']}.")
    return lines


def uneven(result: dict[str, Any]) -> float:
    """How many times as long as a contender's fastest round its median round took: the median."""
    timed = [row for row in result["rows"] if row["min_ms"]]
    return statistics.median([float(row["median_ms"] / row["min_ms"]) for row in timed] or [1.0])


def faults(result: dict[str, Any]) -> list[str]:
    """Why some rows do not count, a line each."""
    return [
        f"{row['contender']} {row['precision']}: {row['wrong'] or row['error']}"
        for row in result["rows"]
        if row["wrong"] or row["error"]
    ]
