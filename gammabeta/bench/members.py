"""Members of one fused program against the same runs one after another, taking turns."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from gammabeta.bench.case import Case, OneBatch
from gammabeta.bench.floors import wait
from gammabeta.bench.rounds import TOLERANCE, exact_convolutions, steps_for
from gammabeta.data import load_dataset
from gammabeta.data.augment import epoch_plan
from gammabeta.engine import choose_engine
from gammabeta.engine.fused import FusedEngine, make_members
from gammabeta.models import create_model
from gammabeta.spec import RunSpec
from gammabeta.subset import select

# What the members differ in: eight rates over one backbone, five networks of their own.
RATES = [{"lr": 0.2 / 2**power} for power in range(8)]
REPLICATES = [{"seed": seed} for seed in range(5)]
KINDS = {"8 learning rates": RATES, "5 replicates": REPLICATES}
TOGETHER, APART = "fused, in step", "fused, one after another"
WAYS = {TOGETHER: "fused", APART: "fused", "eager, one after another": "eager"}  # and the engine
_WARM_UP = 3


class _Team:
    """Engines that take a step each."""

    def __init__(self, specs: Sequence[RunSpec], case: Case, name: str, together: bool) -> None:
        data = load_dataset("synthetic")
        self.case = case
        self.engines = []
        for spec in specs:
            model = create_model(spec.model, seed=spec.seed)
            engine_class, _ = choose_engine(name, spec, model, case.device)
            subset = select(model, spec.trainable, seed=spec.seed)
            engine = engine_class(model, subset, spec, data, case.device)
            engine.batches = OneBatch(case)
            self.engines.append(engine)
        if together:
            make_members([each for each in self.engines if isinstance(each, FusedEngine)])
        self.times: list[float] = []
        self.steps = 1  # a repeat

    def step(self, count: int) -> float:
        """Seconds of `count` steps of all."""
        for engine in self.engines:
            engine.begin_epoch(epoch_plan(0, 0, 1, crop_padding=0, flip=False))
        wait(self.case.device)
        started = time.perf_counter()
        for _ in range(count):
            for engine in self.engines:
                engine.step(0, self.case.batch, 1.0)
        wait(self.case.device)
        return time.perf_counter() - started

    def losses(self) -> list[float]:
        return [engine.totals()[0] for engine in self.engines]


def teams(
    case: Case, changes: Sequence[dict[str, Any]], only: Sequence[str] = tuple(WAYS)
) -> dict[str, _Team]:
    """The runs that differ in `changes`, once for each way of `only`."""
    specs = [case.spec().replace(**change) for change in changes]
    return {name: _Team(specs, case, WAYS[name], together=name == TOGETHER) for name in only}


def measure_members(
    case: Case,
    changes: Sequence[dict[str, Any]],
    *,
    repeats: int = 7,
    deadline: float = math.inf,
    say: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """One row for each way to train runs that differ in `changes`. ms: of a step of all of them.
    ratio: times as fast as one after another, paired by repeat, median, least and most."""
    made = teams(case, changes)
    first: dict[str, list[float]] = {}
    for name, team in made.items():
        with exact_convolutions():
            team.step(1)
        first[name] = team.losses()
        team.step(_WARM_UP)
        team.steps = steps_for(team.step(1))
        say(f"{name}: {team.steps} steps a repeat")
    for _ in range(repeats):
        if time.monotonic() > deadline:
            break
        for team in made.values():
            team.times.append(team.step(team.steps) / team.steps * 1000)
    base = made[APART].times
    rows = []
    for name, team in made.items():
        row: dict[str, Any] = {
            "model": case.model, "trainable": case.trainable, "precision": case.precision,
            "batch": case.batch, "members": len(changes), "how": name, "repeats": len(team.times),
            "steps": team.steps, "wrong": _wrong(first[name], first[APART], case.precision),
        }  # fmt: skip
        if team.times:
            ratios = [one / other for one, other in zip(base, team.times, strict=True)]
            row |= {
                "median_ms": statistics.median(team.times),
                "min_ms": min(team.times),
                "max_ms": max(team.times),
                "ratio": [statistics.median(ratios), min(ratios), max(ratios)],
            }
        rows.append(row)
    return rows


def _wrong(found: Sequence[float], expected: Sequence[float], precision: str) -> str | None:
    """Each member's first loss must be what it is alone."""
    for row, (one, other) in enumerate(zip(found, expected, strict=True)):
        if not abs(one / other - 1) <= TOLERANCE[precision]:
            return f"member {row}: its first loss is {one:.6g}, alone it is {other:.6g}"
    return None


def cases(model: str, trainable: str, batch: int, device: torch.device) -> list[Case]:
    """In both precisions."""
    case = Case(model, trainable, "fp32", batch, device)
    return [case, replace(case, precision="bf16")]
