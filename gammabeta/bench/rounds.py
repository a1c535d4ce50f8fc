"""Contenders side by side: all are made ready, then each takes its turn, over and over, so that a
slow moment of a shared machine hits them alike."""

import contextlib
import functools
import gc
import json
import math
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from gammabeta.bench.case import Case
from gammabeta.bench.contenders import BASE, CONTENDERS, Ready, forget_compiled
from gammabeta.bench.floors import CONVOLUTIONS, Convolutions, Copy, moved_bytes, wait
from gammabeta.engine import why_slow
from gammabeta.environment import environment
from gammabeta.errors import InputError

# How far a first loss may be from the base's, as a share of it. In deep networks rounding grows
# from layer to layer: in bf16 also three times as far as plain torch's own is, if it takes part.
TOLERANCE = {"fp32": 1e-3, "bf16": 3e-2}
FEWEST = 5  # timed repeats
NO_TIME = "no time was left"  # as a row's error
_WARM_UP = 2  # steps after the first
_SECONDS = 0.25  # that one repeat should take, at least
_MOST_STEPS = 200
_COPY_S = 0.05  # that a look at the copy's rate takes, about
_OURS = ("fused", "lean")


@dataclass
class Row:
    """One contender. ms: of a step, one value a repeat of `steps` steps. ratio: times as fast as
    the base, paired by repeat, median, least and most. compile_s: of the first step, with all that
    is compiled, tuned or captured at it. floor_ms, distance: see `measure`. wrong, error: why its
    numbers do not count."""

    contender: str
    precision: str
    median_ms: float | None = None
    min_ms: float | None = None
    max_ms: float | None = None
    repeats: int = 0
    steps: int = 0
    images_per_second: float | None = None
    ratio: list[float] | None = None
    saved_bytes: int | None = None
    peak_bytes: int | None = None
    floor_ms: float | None = None
    distance: float | None = None
    loss: float | None = None
    make_s: float | None = None
    compile_s: float | None = None
    warm_up_s: float | None = None
    wrong: str | None = None
    error: str | None = None


@dataclass
class _Entrant:
    """A contender in the ring."""

    name: str
    case: Case
    row: Row
    ready: Ready | None = None
    steps: int = 1
    turn_s: float = 0.0  # that a turn takes, about
    times: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)  # by name, of all entrants, in their order

    def prepare(self) -> None:
        """Make it, take its first steps, and see how many fill a repeat."""
        device, row = self.case.device, self.row
        allocated = _allocated(device)
        self.ready, row.make_s = _timed(lambda: _make(self.name, self.case), device)
        with self._exact():
            _, row.compile_s = _timed(self.ready.step, device)
        if self.name != CONVOLUTIONS:
            row.loss = self.ready.loss()
        _, row.warm_up_s = _timed(lambda: self._take(_WARM_UP), device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        _, seconds = _timed(self.ready.step, device)
        if allocated is not None:
            peak = torch.cuda.max_memory_allocated(device)
            hidden = self.ready.hidden_bytes()
            row.peak_bytes = None if hidden is None else peak - allocated + hidden
        self.steps = row.steps = steps_for(seconds)
        self.turn_s = self.steps * seconds

    def _exact(self) -> contextlib.AbstractContextManager[None]:
        """For the first step, whose loss is compared. What compiles itself for a setting is left
        alone."""
        return contextlib.nullcontext() if self.compiles else exact_convolutions()

    @property
    def compiles(self) -> bool:
        return self.name.startswith("torch-compile")

    @property
    def tolerance(self) -> float:
        rounded = self.compiles and self.case.device.type == "cuda"
        return TOLERANCE["bf16" if rounded else self.row.precision]

    def turn(self) -> None:
        _, seconds = _timed(lambda: self._take(self.steps), self.case.device)
        self.times.append(seconds / self.steps * 1000)

    def _take(self, steps: int) -> None:
        assert self.ready is not None
        for _ in range(steps):
            self.ready.step()

    def count_saved(self) -> None:
        assert self.ready is not None
        if self.ready.saved is not None:
            self.row.saved_bytes = self.ready.saved()

    def guarded(self, work: Callable[[], None]) -> None:
        """One contender that fails, at compiling say, does not take the others with it."""
        if self.row.error is not None:
            return
        try:
            work()
        except Exception as error:
            lines = str(error).strip().splitlines() or ["no message"]
            self.row.error = f"{type(error).__name__}: {lines[0]}"[:300]
            self.ready = None
            self.failed.append(self.name)


@contextlib.contextmanager
def exact_convolutions() -> Iterator[None]:
    """A GPU's fp32 convolutions round to TF32 by default. In here they do not."""
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def check_contenders(names: Sequence[str], case: Case) -> None:
    """Raise InputError for a contender that is unknown, or that cannot take this case."""
    for name in names:
        if name not in CONTENDERS:
            raise InputError(
                f"unknown contender '{name}': write some of {', '.join(CONTENDERS)}, with commas"
            )
        reason = CONTENDERS[name].why_not(case)
        if reason is not None:
            raise InputError(f"{name} cannot take part: {reason}; leave it out")


def measure(
    case: Case,
    contenders: Sequence[str],
    precisions: Sequence[str],
    *,
    repeats: int = 7,
    memory: bool = False,
    deadline: float = math.inf,
    say: Callable[[str], None] = lambda line: None,
    begin: Callable[[str], None] = lambda name: None,
) -> dict[str, Any]:
    """All `contenders` in all `precisions` on one case, as JSON values: what was measured, the
    environment, and the rows. The base in fp32 and the convolutions alone always take part.

    floor_ms is the time of the convolutions alone and of the bytes of `moved_bytes` at the copy's
    rate, one after the other (of the convolutions alone where a network has no plan); distance is
    ms / floor_ms. memory: on a CPU also the peak, in a process each. deadline, by
    time.monotonic(): who could not be ready early enough for FEWEST rounds is left out, ours last;
    rounds end early. begin: told which contender is made ready next. "failed" in the result: the
    contenders that failed, in that order.
    """
    if repeats < FEWEST:
        raise InputError(f"repeats is {repeats}: write {FEWEST} or more", "repeats")
    check_contenders(contenders, case)
    forget_compiled()
    gc.collect()  # networks of an earlier call may hold memory in cycles
    wanted = [(BASE, "fp32")]
    wanted += [(name, each) for each in precisions for name in (CONVOLUTIONS, *contenders)]
    entrants = [
        _Entrant(name, replace(case, precision=precision), Row(name, precision))
        for name, precision in dict.fromkeys(wanted)
    ]
    failed: list[str] = []
    for entrant in entrants:
        entrant.failed = failed
    for entrant in sorted(entrants, key=_queue):
        rounds = FEWEST * (sum(each.turn_s for each in entrants) + _COPY_S)
        if time.monotonic() + rounds > deadline:
            entrant.row.error = NO_TIME
            continue
        begin(entrant.name)
        with warnings.catch_warnings():
            if entrant.compiles:  # torch's own, about torch
                warnings.simplefilter("ignore")
            entrant.guarded(entrant.prepare)
        state = entrant.row.error or f"{entrant.row.compile_s or 0:.1f} s for the first step"
        say(f"{entrant.name} {entrant.row.precision}: {state}")
    copy = Copy(case.device)
    rates = []
    for index in range(repeats):
        if time.monotonic() > deadline:
            break
        for entrant in entrants:
            entrant.guarded(entrant.turn)
        rates.append(copy.rate())
        say(f"round {index + 1} of {repeats}")
    for entrant in entrants:
        entrant.guarded(entrant.count_saved)
        if memory and case.device.type == "cpu" and entrant.row.error is None:
            entrant.row.peak_bytes = _peak_in_a_process(entrant.name, entrant.case)
    rate = statistics.median(rates) if rates else None
    _judge(entrants, rate)
    operations = {
        entrant.row.precision: entrant.ready.operations
        for entrant in entrants
        if isinstance(entrant.ready, _ReadyConvolutions)
    }
    return {
        "model": case.model,
        "trainable": case.trainable,
        "batch": case.batch,
        "image": case.image,
        "peak": _what_peak_is(case, memory),
        "copy_gb_s": None if rate is None else round(rate / 1e9, 2),
        "operations": max(operations.values(), default=None),
        "moved_bytes": {each: moved_bytes(replace(case, precision=each)) for each in precisions},
        "environment": environment(case.device),
        "slow": why_slow() if case.device.type == "cpu" else None,
        "failed": failed,
        "rows": [asdict(entrant.row) for entrant in entrants],
    }


def steps_for(seconds: float) -> int:
    """How many steps of so many seconds fill a repeat."""
    return max(1, min(_MOST_STEPS, math.ceil(_SECONDS / seconds)))


def _queue(entrant: _Entrant) -> tuple[bool, bool, bool]:
    """Who is made ready first, for if time runs out it is the last who stay out: what all are
    compared with, then ours in every precision; what compiles for minutes comes last."""
    needed = (entrant.name, entrant.row.precision) == (BASE, "fp32") or entrant.name == CONVOLUTIONS
    return entrant.compiles, not needed, entrant.name not in _OURS


@dataclass
class _ReadyConvolutions(Ready):
    operations: int = 0


def _make(name: str, case: Case) -> Ready:
    if name == CONVOLUTIONS:
        alone = Convolutions(case)
        return _ReadyConvolutions(alone.step, lambda: math.nan, operations=alone.operations)
    return CONTENDERS[name].make(case)


def _timed(work: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    wait(device)
    started = time.perf_counter()
    result = work()
    wait(device)
    return result, time.perf_counter() - started


def _judge(entrants: Sequence[_Entrant], rate: float | None) -> None:
    """Fill what follows from the times; mark what computes something else than the base."""
    base = entrants[0]
    alone = {
        each.row.precision: statistics.median(each.times)
        for each in entrants
        if each.name == CONVOLUTIONS and each.times
    }
    stock_bf16 = [
        each.row.loss
        for each in entrants
        if (each.name, each.row.precision) == (BASE, "bf16") and each.row.loss is not None
    ]
    for entrant in entrants:
        row, times = entrant.row, entrant.times
        if row.loss is not None and base.row.loss is not None:
            allowed = entrant.tolerance
            if row.precision == "bf16" and stock_bf16:
                allowed = max(allowed, 3 * abs(stock_bf16[0] / base.row.loss - 1))
            if not abs(row.loss / base.row.loss - 1) <= allowed:  # nan is wrong too
                row.wrong = f"its first loss is {row.loss:.6g}, plain torch's {base.row.loss:.6g}"
                row.loss = row.loss if math.isfinite(row.loss) else None  # nan is no JSON
        if not times or row.error is not None:
            continue
        row.median_ms, row.min_ms, row.max_ms = statistics.median(times), min(times), max(times)
        row.repeats = len(times)
        row.images_per_second = entrant.case.batch / row.median_ms * 1000
        if len(base.times) == len(times):
            ratios = [one / other for one, other in zip(base.times, times, strict=True)]
            row.ratio = [statistics.median(ratios), min(ratios), max(ratios)]
        if row.precision in alone and rate is not None and entrant.name != CONVOLUTIONS:
            moved = moved_bytes(entrant.case) or 0
            row.floor_ms = alone[row.precision] + moved / rate * 1000
            row.distance = row.median_ms / row.floor_ms


def _allocated(device: torch.device) -> int | None:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else None


def _what_peak_is(case: Case, memory: bool) -> str | None:
    """What the column peak_bytes holds, in words."""
    if case.device.type == "cuda":
        return (
            "torch.cuda.max_memory_allocated during a step, less what the others hold, and what "
            "memory_reserved grew by at the capture of its CUDA graph"
        )
    if memory:
        return "resident memory of a process of its own, less what it had before the network"
    return None


def _peak_in_a_process(name: str, case: Case) -> int | None:
    values = {key: str(value) for key, value in asdict(case).items()}
    values |= {"name": name, "threads": str(torch.get_num_threads())}
    command = [sys.executable, "-m", "gammabeta.bench", json.dumps(values)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else None


def print_peak(values: dict[str, str]) -> None:
    """What the process above does."""
    from gammabeta.bench.memory import peak_resident

    torch.set_num_threads(int(values["threads"]))
    case = Case(
        values["model"], values["trainable"], values["precision"], int(values["batch"]),
        torch.device(values["device"]),
    )  # fmt: skip
    for each in (replace(case, model="cifar_resnet_8", batch=4), case):  # the first loads libraries
        peak = peak_resident(functools.partial(_step_of, values["name"], each))
    print(json.dumps(peak))


def _step_of(name: str, case: Case) -> Callable[[], object]:
    return _make(name, case).step
