"""Everything that waits for a GPU, in one command that stops in time and can be continued.

    python benchmarks/gpu.py --data-dir DIR --runs RUNS --out results/gpu.json [--limit 540]

In this order: check that the GPU computes what the CPU computes; measure steps; train the
paper-scale runs that RUNS does not hold yet, going on from the checkpoints it holds (kilobytes).
The JSON is written after every part. `--device cpu --limit 60 --smoke` tries the script itself.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from gammabeta import GammabetaError, InputError, RunSpec, create_model, select, train
from gammabeta.data import load_dataset
from gammabeta.data.augment import epoch_plan
from gammabeta.engine import choose_device
from gammabeta.engine.eager import EagerEngine
from gammabeta.environment import environment
from gammabeta.train import Epoch, Step

# What waits, most wanted first: the paper's recipe, precision as its code's fp16 option.
PAPER = [
    RunSpec(model=f"cifar_resnet_{depth}", trainable=subset, seed=seed, precision="bf16")
    for depth, subset, seeds in (
        (14, "bn", range(5)),
        (32, "bn", range(5)),
        (56, "bn", range(5)),
        (110, "bn", range(5)),
        (14, "random:2", range(5)),
        (14, "all", range(5)),
    )
    for seed in seeds
]
SMOKE = [RunSpec(model="cifar_resnet_8_4", data="synthetic", epochs=2, subsample=256)]


def make_engine(spec: RunSpec, device: torch.device) -> EagerEngine:
    data = load_dataset("synthetic")
    model = create_model(spec.model, seed=spec.seed)
    engine = EagerEngine(model, select(model, spec.trainable, seed=spec.seed), spec, data, device)
    count = len(data.train.labels)
    engine.begin_epoch(epoch_plan(0, 0, count, crop_padding=spec.crop_padding, flip=spec.flip))
    return engine


def check(device: torch.device) -> list[dict[str, Any]]:
    """Loss of the first steps and trained values after one, device against CPU, in fp32."""
    rows = []
    for subset in ("bn", "bn+output", "random:2", "all"):
        spec = RunSpec(model="cifar_resnet_8", trainable=subset, data="synthetic", batch_size=64)
        one, two = make_engine(spec, torch.device("cpu")), make_engine(spec, device)
        for engine in (one, two):
            engine.step(0, 64, 1.0)
        expected, found = one.state(), two.state()
        values = max(
            float((found[key] - value).abs().max())
            for key, value in expected.items()
            if key.startswith("trained/")
        )
        for engine in (one, two):
            engine.step(64, 128, 1.0)
        loss = abs(one.totals()[0] / two.totals()[0] - 1)
        good = values < 1e-3 and loss < 1e-3
        rows.append({"subset": subset, "largest_difference": values, "loss": loss, "good": good})
    return rows


def measure(device: torch.device, models: list[str], steps: int) -> list[dict[str, Any]]:
    """Milliseconds a step, batch 128: median and spread of `steps` after a warm-up."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    rows = []
    for model in models:
        for subset, precision in (("bn", "fp32"), ("bn", "bf16"), ("all", "bf16")):
            spec = RunSpec(model=model, trainable=subset, data="synthetic", precision=precision)
            engine = make_engine(spec, device)
            times = []
            for _ in range(steps + 3):
                wait()
                started = time.perf_counter()
                engine.step(0, 128, 1.0)
                wait()
                times.append((time.perf_counter() - started) * 1000)
            times = times[3:]
            rows.append(
                {
                    "model": model,
                    "subset": subset,
                    "precision": precision,
                    "median_ms": round(statistics.median(times), 3),
                    "min_ms": round(min(times), 3),
                    "max_ms": round(max(times), 3),
                }
            )
    return rows


def train_until(
    specs: list[RunSpec], deadline: float, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Train what is missing until the deadline; the run under way stops and can be resumed."""

    def listen(event: object) -> None:
        if isinstance(event, Step | Epoch) and time.monotonic() > deadline:
            raise KeyboardInterrupt

    rows = []
    for spec in specs:
        if time.monotonic() > deadline:
            break
        row: dict[str, Any] = {"id": spec.id, "model": spec.model, "trainable": spec.trainable}
        data_dir = options.data_dir if spec.data.startswith("cifar") else None
        try:
            run = train(spec, options.runs, data_dir=data_dir, device=options.device, listen=listen)
            row |= {"status": "ok", "test_accuracy": run.accuracy}
        except KeyboardInterrupt:
            row |= {"status": "stopped in time"}
        except InputError as error:  # the same for every other run: no data, say
            rows.append(row | {"status": f"refused: {error}"})
            break
        except GammabetaError as error:
            row |= {"status": f"failed: {error}"}
        rows.append(row | {"seed": spec.seed})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir")
    parser.add_argument("--runs", default="runs")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--limit", type=float, default=540, help="seconds for all of it")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--smoke", action="store_true", help="tiny: to try the script itself")
    options = parser.parse_args()
    deadline = time.monotonic() + options.limit
    device = choose_device(options.device)
    result: dict[str, Any] = {"environment": environment(device)}

    def write() -> None:
        options.out.write_text(json.dumps(result, indent=1) + "\n")

    result["check"] = check(device)
    write()
    if not all(row["good"] for row in result["check"]):
        raise SystemExit(f"the device computes something else than the CPU: see {options.out}")
    models = ["cifar_resnet_8"] if options.smoke else ["cifar_resnet_14", "cifar_resnet_110"]
    result["steps"] = measure(device, models, steps=3 if options.smoke else 30)
    write()
    result["runs"] = train_until(SMOKE if options.smoke else PAPER, deadline, options)
    write()
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
