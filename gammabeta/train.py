"""The training loop: pure, no printing, no paths. It yields what happened; run.py writes it."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gammabeta.data.augment import EpochPlan, epoch_plan
from gammabeta.engine import Engine
from gammabeta.errors import RunError
from gammabeta.gammas import small_gammas
from gammabeta.schedule import learning_rate_factor
from gammabeta.spec import RunSpec


@dataclass(frozen=True)
class Step:
    """A training step has been taken. `done` of `total` steps of the whole run are behind us."""

    done: int
    total: int


@dataclass(frozen=True)
class Epoch:
    """An epoch is over and evaluated. `record` is its line of metrics.jsonl; `run` the id of the
    run where several train in step."""

    record: dict[str, Any]
    run: str | None = None


def train_epochs(engine: Engine, spec: RunSpec, first_epoch: int) -> Iterator[Step | Epoch]:
    """Train epochs first_epoch+1 .. spec.epochs and evaluate after each.

    Losses are means over images; seconds are of training alone, evaluation is timed apart.
    Raises RunError when the loss is no longer finite.
    """
    count = len(engine.data.train.labels)
    steps_per_epoch = math.ceil(count / spec.batch_size)
    for epoch in range(first_epoch, spec.epochs):
        started = time.perf_counter()
        engine.begin_epoch(plan_of(spec, epoch, count))
        for index in range(steps_per_epoch):
            done = epoch * steps_per_epoch + index
            start = index * spec.batch_size
            factor = learning_rate_factor(spec, done, steps_per_epoch)
            engine.step(start, min(start + spec.batch_size, count), factor)
            yield Step(done + 1, spec.epochs * steps_per_epoch)
        loss, accuracy = engine.totals()
        trained_for = time.perf_counter() - started
        _check_finite("training", loss, epoch)
        started = time.perf_counter()
        evaluation = engine.evaluate()
        _check_finite("test", evaluation["test_loss"], epoch)
        yield Epoch(
            {
                "epoch": epoch + 1,
                "step": (epoch + 1) * steps_per_epoch,
                "lr": spec.lr * factor,
                "train_loss": loss,
                "train_accuracy": accuracy,
                **evaluation,
                "small_gammas": small_gammas(engine.model),
                "seconds": round(trained_for, 3),
                "evaluation_seconds": round(time.perf_counter() - started, 3),
            }
        )


def plan_of(spec: RunSpec, epoch: int, count: int) -> EpochPlan:
    """The order and augmentation of an epoch of this run, over `count` images."""
    return epoch_plan(
        spec.seed, epoch, count,
        crop_padding=spec.crop_padding, flip=spec.flip, brightness=spec.brightness,
    )  # fmt: skip


def _check_finite(which: str, loss: float, epoch: int) -> None:
    if not math.isfinite(loss):
        raise RunError(
            f"the {which} loss became {loss} in epoch {epoch + 1}: try a smaller learning rate, "
            "epochs of warm-up, or the precision fp32"
        )


def seconds_per_step(engines: Sequence[Engine], spec: RunSpec) -> float:
    """Wall time of a training step of engines that step together: the fastest of three, which are
    then taken back exactly."""
    before = [engine.state() for engine in engines]
    count = len(engines[0].data.train.labels)
    for engine in engines:
        engine.begin_epoch(plan_of(engine.spec, 0, count))
    times = []
    for _ in range(3):
        started = time.perf_counter()
        for engine in engines:
            engine.step(0, spec.batch_size, 1.0)
        engines[-1].totals()
        times.append(time.perf_counter() - started)
    for engine, state in zip(engines, before, strict=True):
        engine.load(state)
    return min(times)
