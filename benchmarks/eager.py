"""Speed of the eager engine against the plainest torch loop, side by side in one process.

    python benchmarks/eager.py [--model cifar_resnet_14] [--out results/eager_speed.json]

The plain loop is what anybody would write: NCHW, fp32, stock modules, torch.optim.SGD, a batch
that is in memory already; no augmentation, no metrics. The engine does all of its work. Each row is
timed in turn, several times over, so that a slow moment of a shared machine hits all of them.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from gammabeta import RunSpec, create_model, select
from gammabeta.data import load_dataset
from gammabeta.data.augment import epoch_plan, normalise
from gammabeta.engine.eager import EagerEngine
from gammabeta.environment import environment

BATCH = 128


def plain_step(model_name: str, subset: str) -> Callable[[], None]:
    model = create_model(model_name)
    leaves = select(model, subset).apply(model)
    optimizer = torch.optim.SGD(list(leaves.values()), 0.1, momentum=0.9, weight_decay=1e-4)
    data = load_dataset("synthetic")
    images = torch.from_numpy(data.train.images[:BATCH])
    images = normalise(images, data.mean, data.std).contiguous()
    labels = torch.from_numpy(data.train.labels[:BATCH])

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return step


def engine_step(model_name: str, subset: str, precision: str) -> Callable[[], None]:
    spec = RunSpec(model=model_name, trainable=subset, data="synthetic", precision=precision)
    data = load_dataset("synthetic")
    model = create_model(model_name)
    engine = EagerEngine(model, select(model, subset), spec, data, torch.device("cpu"))
    count = len(data.train.labels)
    engine.begin_epoch(epoch_plan(0, 0, count, crop_padding=spec.crop_padding, flip=spec.flip))
    return lambda: engine.step(0, BATCH, 1.0)


def measure(
    rows: dict[str, Callable[[], None]], repeats: int, steps: int
) -> dict[str, list[float]]:
    """Milliseconds a step of every row, `repeats` times, each the mean of `steps` steps."""
    times: dict[str, list[float]] = {name: [] for name in rows}
    for step in rows.values():  # warm-up
        for _ in range(3):
            step()
    for _ in range(repeats):
        for name, step in rows.items():
            started = time.perf_counter()
            for _ in range(steps):
                step()
            times[name].append((time.perf_counter() - started) / steps * 1000)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="cifar_resnet_14")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result = {
        "what": "milliseconds a training step, batch 128; ratio = plain loop / engine",
        "model": options.model,
        "repeats": options.repeats,
        "steps": options.steps,
        "environment": environment(torch.device("cpu")),
        "rows": [],
    }
    for subset in ("bn", "all"):
        rows = {
            "plain torch loop, NCHW fp32": plain_step(options.model, subset),
            "eager engine, fp32": engine_step(options.model, subset, "fp32"),
            "eager engine, bf16": engine_step(options.model, subset, "bf16"),
        }
        times = measure(rows, options.repeats, options.steps)
        base = times["plain torch loop, NCHW fp32"]
        for name, found in times.items():
            ratios = [one / other for one, other in zip(base, found, strict=True)]
            result["rows"].append(
                {
                    "subset": subset,
                    "name": name,
                    "median_ms": round(statistics.median(found), 2),
                    "min_ms": round(min(found), 2),
                    "max_ms": round(max(found), 2),
                    "ratio_median": round(statistics.median(ratios), 3),
                    "ratio_min": round(min(ratios), 3),
                    "ratio_max": round(max(ratios), 3),
                }
            )
    text = json.dumps(result, indent=1) + "\n"
    print(text, end="")
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
