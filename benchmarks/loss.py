"""Do the faster engines and bf16 train as plain torch does? The loss over some hundred real steps
of the paper's recipe, from the same start on the same batches, and the noise to judge it by.

    python benchmarks/loss.py --out results/loss_cpu.json [--data-dir DIR]
    python benchmarks/loss.py --double --steps 100 --out results/loss_double.json [--data-dir DIR]

The judge is plain torch in fp32: NCHW, stock modules. Its noise is measured twice: with another
order of the data (seeds 1 and 2), and with other rounding only, from a start at which every gamma
is one step of fp32 larger or smaller (four draws). Training magnifies rounding, so in fp32 no
engine can stay at the judge. With --double, `lean` is held against plain torch in double
precision, whose rounding is 2^29 times smaller: an error in its functions or its conversion would
show there. The compiled passes take no doubles, so their plain twin runs (slow: seconds a step on a
CPU). Without --data-dir the data is synthetic.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gammabeta import RunSpec, create_model, select
from gammabeta.data import Dataset, load_dataset
from gammabeta.data.augment import epoch_plan
from gammabeta.engine import ENGINES, Engine, choose_device
from gammabeta.engine.eager import EagerEngine
from gammabeta.engine.lean import LeanEngine
from gammabeta.environment import environment

LAST = 50  # steps whose losses are averaged


class PlainEngine(EagerEngine):
    """Eager without its memory format: NCHW."""

    name = "torch"

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.model.to(memory_format=torch.contiguous_format)

    def _logits(self, images: Tensor) -> Tensor:
        return super()._logits(images.contiguous())


class NudgedEngine(PlainEngine):
    """From a start that differs as little as fp32 can: what rounding alone does to a run."""

    nudge = 0

    def __init__(self, model: nn.Module, *parts: Any) -> None:
        draw = torch.Generator().manual_seed(self.nudge)
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                gamma = norm.weight.data
                up = torch.rand(gamma.shape, generator=draw) < 0.5
                norm.weight.data = torch.nextafter(gamma, torch.where(up, torch.inf, -torch.inf))
        super().__init__(model, *parts)


class DoublePlainEngine(PlainEngine):
    """The judge in double precision."""

    def __init__(self, model: nn.Module, *parts: Any) -> None:
        super().__init__(model.double(), *parts)

    def _logits(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images.double().contiguous())
        return logits


class DoubleLeanEngine(LeanEngine):
    def __init__(self, model: nn.Module, *parts: Any) -> None:
        super().__init__(model.double(), *parts)

    def _logits(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images.double())
        return logits


def losses(engine: Engine, order: int, steps: int) -> list[float]:
    """The loss of each step. order: the seed of the data's order, crops and flips."""
    spec, count = engine.spec, len(engine.data.train.labels)
    found: list[float] = []
    while len(found) < steps:
        epoch = epoch_plan(
            order, len(found) * spec.batch_size // count, count,
            crop_padding=spec.crop_padding, flip=spec.flip,
        )  # fmt: skip
        for start in range(0, count - spec.batch_size + 1, spec.batch_size):
            if len(found) == steps:
                break
            engine.begin_epoch(epoch)  # the totals are of this step alone
            engine.step(start, start + spec.batch_size, 1.0)
            found.append(engine.totals()[0])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data-dir")
    parser.add_argument("--model", default="cifar_resnet_14")
    parser.add_argument("--trainable", default="bn")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--double", action="store_true", help="in double precision, these alone")
    options = parser.parse_args()
    device = choose_device(options.device)
    name = "synthetic" if options.data_dir is None else "cifar10"
    data = load_dataset(name, options.data_dir)
    result: dict[str, Any] = {
        "model": options.model, "trainable": options.trainable, "batch": options.batch_size,
        "steps": options.steps, "last": LAST, "data": data.source, "sha256": data.sha256,
        "environment": environment(device), "rows": [],
    }  # fmt: skip
    rows: list[dict[str, Any]] = result["rows"]

    def run(
        kind: str, what: str, engine: Callable[..., Engine], precision: str, order: int
    ) -> None:
        """Take the steps; the row says how far their losses are from the judge's, the first row."""
        made = engine(*parts(options, data, "bf16" if precision == "bf16" else "fp32"), device)
        found = losses(made, order, options.steps)
        row = {
            "kind": kind, "what": what, "precision": precision, "order": order,
            "first": found[0], "end": found[-1], "mean_last": statistics.fmean(found[-LAST:]),
        }  # fmt: skip
        for key in ("first", "end", "mean_last"):
            row[f"{key}_off"] = row[key] / (rows[0] if rows else row)[key] - 1
        rows.append(row)
        print(f"{kind}: {what} {precision}: {row['mean_last']:.4f} ({row['mean_last_off']:+.2g})")
        options.out.write_text(json.dumps(result, indent=1) + "\n")

    if options.double:
        run("judge", "torch", DoublePlainEngine, "fp64", 0)
        run("engine", "lean", DoubleLeanEngine, "fp64", 0)
        return
    run("judge", "torch", PlainEngine, "fp32", 0)
    for precision in ("fp32", "bf16"):
        for engine in ENGINES.values():
            run("engine", engine.name, engine, precision, 0)
    for order in (1, 2):
        run("another order", f"torch, order {order}", PlainEngine, "fp32", order)
    for NudgedEngine.nudge in range(1, 5):
        run("other rounding", f"torch, nudged {NudgedEngine.nudge}", NudgedEngine, "fp32", 0)


def parts(options: argparse.Namespace, data: Dataset, precision: str) -> tuple[Any, ...]:
    """Model, subset, spec and data: what an engine is made of, but for the device."""
    spec = RunSpec(
        model=options.model, trainable=options.trainable, data=data.name, precision=precision,
        batch_size=options.batch_size,
    )  # fmt: skip
    model = create_model(spec.model, num_classes=data.num_classes)
    return model, select(model, spec.trainable), spec, data


if __name__ == "__main__":
    main()
