"""The tables of docs/compact.md, from what compact.py wrote."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pieces import table, where

from gammabeta.bench.show import number
from gammabeta.names import readable
from gammabeta.spec import RunSpec


def compacted(results: Path, part: str, draw: Callable[[dict[str, Any]], str]) -> str:
    """A table a run of what benchmarks/compact.py wrote, with the run and the machine above it."""
    found = json.loads((results / "compact.json").read_text())
    parts = []
    for run in found.values():
        spec = RunSpec.from_dict(run["spec"])
        title = f"**{readable(spec.model)}, `{spec.trainable}`, {spec.epochs} epochs.**"
        packages = run[part]["environment"]["packages"]
        named = {"latency": ("onnxruntime",), "pruning": ("torch-pruning",)}.get(part, ("onnx",))
        told = ", ".join(f"{name} {packages[name]}" for name in named)
        parts += [f"{title} {where(run[part]['environment'])[:-1]}, {told}.", draw(run)]
    return "\n\n".join(parts)


def changed(row: dict[str, Any]) -> list[str]:
    """How its answers differ from the original's."""
    cells = [f"{100 * row['test_accuracy']:.2f}", f"{row['answers_changed']:,}"]
    return [*cells, number(row["largest_logit_change"], 2)]


def compact_networks(results: Path) -> str:
    def draw(run: dict[str, Any]) -> str:
        body = []
        for row in run["networks"]["rows"]:
            name = f"below {row['threshold']:g}" if row.get("threshold") else "none"
            name = name if "threshold" in row else "original"
            off = f"{row['switched_off']}" if "threshold" in row else "-"
            left = f"{row['channels']} of {row['channels_before']}" if "threshold" in row else "-"
            body.append([
                name, off, left, f"{row['parameters']:,}", number(row["operations"] / 1e6, 3),
                number(row["bytes"] / 1000, 3), number(row["onnx_bytes"] / 1000, 3), *changed(row),
                number(row["off_by_rounding"], 2) if "threshold" in row else "-",
            ])  # fmt: skip
        head = ["gammas set to zero", "how many", "channels left", "parameters",
                "million operations", "safetensors, kB", "ONNX, kB", "test accuracy, %",
                "answers changed", "largest logit change", "of it rounding"]  # fmt: skip
        return table(head, body)

    return compacted(results, "networks", draw)


def compact_pruning(results: Path) -> str:
    """Torch-Pruning's rows, each threshold's after our own."""

    def draw(run: dict[str, Any]) -> str:
        ours = {row["threshold"]: row for row in run["networks"]["rows"] if "threshold" in row}
        body = []
        for row in run["pruning"]["rows"]:
            pairs = [("Torch-Pruning, " + row["network"], row)]
            if row["network"] == "below the threshold":
                pairs.insert(0, ("compaction", ours[row["threshold"]]))
            for name, each in pairs:
                sizes = [f"{each['parameters']:,}", number(each["operations"] / 1e6, 3)]
                body.append([f"{row['threshold']:g}, {name}", *sizes, *changed(each)])
        head = ["threshold", "parameters", "million operations", "test accuracy, %",
                "answers changed", "largest logit change"]  # fmt: skip
        return table(head, body)

    return compacted(results, "pruning", draw)


def compact_latency(results: Path) -> str:
    def draw(run: dict[str, Any]) -> str:
        body = [
            [
                f"{row['runtime']}, batch of {row['batch']}, {row['network']}",
                number(row["median_ms"], 3),
                f"{number(row['low_ms'], 3)}-{number(row['high_ms'], 3)}",
                number(row["fastest_ms"], 3),
                number(row["processor_ms"], 3),
            ]
            for row in run["latency"]["rows"]
        ]
        head = [f"median of {run['latency']['rounds']} rounds", "ms", "quartiles", "fastest",
                "ms of processor"]  # fmt: skip
        return table(head, body)

    return compacted(results, "latency", draw)
