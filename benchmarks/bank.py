"""One batch of many tasks, four ways: one mixed pass over a bank; a bank that switches and runs
each task's samples alone; a copy of the network for each task; copies of only what trained, around
shared frozen weights (as PEFT's modules_to_save are).

    python benchmarks/bank.py --out results/bank.json [--model cifar_resnet_14]

Tasks are random changes of the trained values: what they are changes no time. Rounds go through all
ways in turn, so that a busy machine is busy for each of them.
"""

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gammabeta import Bank, create_model, load_delta, select
from gammabeta.bench.memory import Storages, peak_allocated
from gammabeta.delta import make_delta
from gammabeta.delta_file import Delta, to_bytes
from gammabeta.engine import choose_device
from gammabeta.environment import environment


def deltas(base: nn.Module, trainable: str, count: int) -> dict[str, Delta]:
    found = {}
    network = copy.deepcopy(base)
    subset = select(network, trainable)
    leaves = subset.apply(network)
    start = copy.deepcopy(network.state_dict())
    for number in range(count):
        draw = torch.Generator().manual_seed(number)
        network.load_state_dict(start)
        with torch.no_grad():
            for leaf in leaves.values():
                leaf.add_(0.1 * torch.randn(leaf.shape, generator=draw).to(leaf))
        found[f"task{number}"] = make_delta(network, subset)
    return found


def bytes_of(*modules: nn.Module) -> int:
    found = Storages()
    for module in modules:
        found.add(*module.parameters(), *module.buffers())
    return found.bytes()


def ways(
    base: nn.Module, tasks: dict[str, Delta], images: Tensor, order: list[str]
) -> dict[str, tuple[Callable[[], Tensor], int]]:
    """How -> (the logits of the batch in its own order, bytes held beside one network)."""
    places = {task: [n for n, each in enumerate(order) if each == task] for task in tasks}
    alone = bytes_of(base)

    def by_task(network: Callable[[str], nn.Module]) -> Tensor:
        parts = [network(task)(images[rows]) for task, rows in places.items()]
        logits = torch.empty(len(order), *parts[0].shape[1:], device=images.device)
        for rows, part in zip(places.values(), parts, strict=True):
            logits[rows] = part
        return logits

    bank = Bank(copy.deepcopy(base))
    for task, delta in tasks.items():
        bank.add(task, delta)
    whole, around = {}, {}
    for task, delta in tasks.items():
        whole[task] = copy.deepcopy(base)
        load_delta(whole[task], delta)
        named = dict(base.named_parameters()) | dict(base.named_buffers())
        shared = {id(named[name]): named[name] for name in delta.frozen}
        around[task] = copy.deepcopy(base, shared)
        load_delta(around[task], delta)
    return {
        "one mixed pass": (lambda: bank.forward(images, tasks=order), bank.nbytes),
        "switch and run each task": (lambda: by_task(bank.activate), bank.nbytes),
        "a network for each task": (
            lambda: by_task(whole.__getitem__),
            bytes_of(*whole.values()) - alone,
        ),
        "copies around shared weights": (
            lambda: by_task(around.__getitem__),
            bytes_of(base, *around.values()) - alone,
        ),
    }


@torch.no_grad()
def measure(base: nn.Module, options: argparse.Namespace, count: int) -> list[dict[str, Any]]:
    tasks = deltas(base, options.trainable, count)
    device = next(base.parameters()).device
    images = torch.randn(options.batch_size, 3, options.size, options.size, device=device)
    order = [f"task{number % count}" for number in torch.randperm(options.batch_size).tolist()]
    tasks = {task: delta for task, delta in tasks.items() if task in order}
    made = ways(base, tasks, images, order)
    outputs = {how: way() for how, (way, _) in made.items()}  # which also warms all of them up
    judge = outputs["a network for each task"]
    times: dict[str, list[float]] = {how: [] for how in made}
    peaks = {how: peak_allocated(way, device) for how, (way, _) in made.items()}
    for _ in range(options.repeats):
        for how, (way, _) in made.items():
            begin = time.perf_counter()
            way()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times[how].append(1e3 * (time.perf_counter() - begin))
    return [
        {
            "tasks": count, "how": how,
            "median_ms": statistics.median(times[how]),
            "low_ms": min(times[how]), "high_ms": max(times[how]), "repeats": options.repeats,
            "held_bytes": held, "peak_bytes": peaks[how],
            "largest_difference": float((outputs[how] - judge).abs().max() / judge.abs().max()),
        }
        for how, (_, held) in made.items()
    ]  # fmt: skip


@torch.no_grad()
def switching(base: nn.Module, trainable: str) -> dict[str, float]:
    """Microseconds of one `activate`, and a task's bytes in its file."""
    bank, found = Bank(copy.deepcopy(base)), []
    tasks = deltas(base, trainable, 2)
    for task, delta in tasks.items():
        bank.add(task, delta)
    device = next(bank.module.parameters()).device
    for number in range(500):
        begin = time.perf_counter()
        bank.activate(f"task{number % 2}")
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(1e6 * (time.perf_counter() - begin))
    return {
        "median_us": statistics.median(found), "low_us": min(found), "high_us": max(found),
        "repeats": len(found), "file_bytes": len(to_bytes(tasks["task0"])),
        "network_bytes": bytes_of(base),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="cifar_resnet_14")
    parser.add_argument("--trainable", default="bn+output")
    parser.add_argument("--tasks", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--size", type=int, default=32, help="pixels a side")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = choose_device(options.device)
    torch.manual_seed(0)
    base = create_model(options.model).to(device).eval()
    result: dict[str, Any] = {
        "model": options.model, "trainable": options.trainable, "batch": options.batch_size,
        "size": options.size, "environment": environment(device),
        "activate": switching(base, options.trainable), "rows": [],
    }  # fmt: skip
    for count in options.tasks:
        for row in measure(base, options, count):
            result["rows"].append(row)
            print(count, row["how"], f"{row['median_ms']:.1f} ms", f"{row['held_bytes']:,} bytes")
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    if any(row["largest_difference"] > 1e-6 for row in result["rows"]):
        raise SystemExit(f"some ways compute something else: see {options.out}")


if __name__ == "__main__":
    main()
