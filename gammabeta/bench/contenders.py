"""The contenders: ways to take the same training step, side by side."""

import contextlib
import functools
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gammabeta.bench.case import Case, OneBatch
from gammabeta.bench.memory import kept_by_program, saved_by_autograd
from gammabeta.bench.memsave import memsave
from gammabeta.data import load_dataset
from gammabeta.data.augment import epoch_plan
from gammabeta.engine import Engine, choose_engine
from gammabeta.engine.fused import FusedEngine
from gammabeta.engine.fused import why_not as why_not_fused
from gammabeta.models import architecture

_LAST = torch.channels_last


@dataclass
class Ready:
    """A contender that is set up. step: takes one step; does not wait for the device. loss: of the
    last one. saved: takes a step more and counts the bytes of activations kept for its backward
    pass. hidden_bytes: memory that torch does not count as allocated (a CUDA graph's); None where
    nobody can say how much."""

    step: Callable[[], object]
    loss: Callable[[], float]
    saved: Callable[[], int] | None = None
    hidden_bytes: Callable[[], int | None] = field(default=lambda: 0)


@dataclass(frozen=True)
class Contender:
    """what: one line for the reader. why_not: the reason why it cannot take this case, or None."""

    what: str
    make: Callable[[Case], Ready]
    why_not: Callable[[Case], str | None] = field(default=lambda case: None)


class Loop:
    """The training loop that anybody would write."""

    def __init__(
        self,
        case: Case,
        memory_format: torch.memory_format,
        change: Callable[[nn.Module], Callable[[Tensor], Tensor]] = lambda model: model,
    ) -> None:
        self.case = case
        self.model, subset = case.make(memory_format)
        spec, leaves = case.spec(), subset.apply(self.model)
        self.network = change(self.model)  # after apply: what is frozen is settled
        self.optimizer = torch.optim.SGD(
            list(leaves.values()), spec.lr, spec.momentum, weight_decay=spec.weight_decay
        )
        self.images = case.images().contiguous(memory_format=memory_format)
        self.labels = case.labels()
        self.loss = torch.zeros(())

    def step(self) -> None:
        with torch.autocast(self.case.device.type, torch.bfloat16, self.case.precision == "bf16"):
            logits = self.network(self.images)
        loss = F.cross_entropy(logits.float(), self.labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.loss = loss.detach()

    def ready(self) -> Ready:
        def saved() -> int:
            return saved_by_autograd(self.step, self.model, self.images)

        return Ready(self.step, lambda: float(self.loss), saved)


class Graph(Loop):
    """The same loop with the whole step in one CUDA graph, captured at the second step."""

    def __init__(self, case: Case) -> None:
        super().__init__(case, _LAST)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.pool_bytes = 0

    def replay(self) -> None:
        if self.graph is not None:
            self.graph.replay()
            return
        if not self.optimizer.state:  # momentum has to exist before the capture
            self._beside(self.step)
            return
        self.graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(self.case.device)
        torch.cuda.empty_cache()
        before = torch.cuda.memory_reserved(self.case.device)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(self.graph):
            self.step()
        self.pool_bytes = torch.cuda.memory_reserved(self.case.device) - before
        self.graph.replay()

    def _beside(self, step: Callable[[], None]) -> None:
        """On a stream of its own, as torch asks before a capture."""
        beside = torch.cuda.Stream(self.case.device)  # type: ignore[no-untyped-call]
        own = torch.cuda.current_stream(self.case.device)
        beside.wait_stream(own)
        with torch.cuda.stream(beside):
            step()
        own.wait_stream(beside)

    def ready(self) -> Ready:
        def saved() -> int:
            static = self.loss
            found = saved_by_autograd(self.step, self.model, self.images)
            self.loss = static
            return found

        return Ready(self.replay, lambda: float(self.loss), saved, lambda: self.pool_bytes)


def _compiled(mode: str | None) -> Callable[[Case], Ready]:
    def change(model: nn.Module) -> Callable[[Tensor], Tensor]:
        compiled: Callable[[Tensor], Tensor] = torch.compile(model, mode=mode, dynamic=False)
        return compiled

    def make(case: Case) -> Ready:
        ready = Loop(case, _LAST, change).ready()
        if mode is not None and case.device.type == "cuda":  # its graphs are torch's own
            ready.hidden_bytes = lambda: None
        return ready

    return make


def pool_bytes(engine: Engine) -> int:
    """What the CUDA graphs of an engine hold where torch does not count it as allocated."""
    team = getattr(engine, "team", None)
    graphed = getattr(engine, "_graphed", None) if team is None else team.learn
    return getattr(graphed, "pool_bytes", 0)  # nothing, where no graph is used


def _engine(name: str) -> Callable[[Case], Ready]:
    def make(case: Case) -> Ready:
        spec = case.spec()
        model, subset = case.make(torch.contiguous_format)
        engine_class, _ = choose_engine(name, spec, model, case.device)
        engine = engine_class(model, subset, spec, load_dataset("synthetic"), case.device)
        engine.batches = batches = OneBatch(case)
        plan = epoch_plan(0, 0, 1, crop_padding=0, flip=False)
        engine.begin_epoch(plan)

        def step() -> None:
            engine.step(0, case.batch, 1.0)

        def loss() -> float:
            found, _ = engine.totals()
            engine.begin_epoch(plan)  # only the steps since then
            return found

        def saved() -> int:
            if isinstance(engine, FusedEngine):
                return kept_by_program(engine, batches)
            drawn = batches.drawn(0, 0)  # learnt here and now, and not by a graph
            learn = functools.partial(engine.learn, drawn, case.batch)
            return saved_by_autograd(learn, engine.model, drawn[0])

        return Ready(step, loss, saved, lambda: pool_bytes(engine))

    return make


def _fused_cannot(case: Case) -> str | None:
    return why_not_fused(case.spec(), architecture(case.model), case.device)


def _no_gpu(case: Case) -> str | None:
    return None if case.device.type == "cuda" else "a CUDA graph needs a GPU"


def _no_compiler(case: Case) -> str | None:
    names = (os.environ.get("CXX") or "g++", "clang++", "c++")
    if case.device.type == "cpu" and not any(map(shutil.which, names)):
        return "torch.compile needs a C++ compiler (g++, clang++ or $CXX)"
    return None


BASE = "torch"  # in fp32: what every ratio refers to
CONTENDERS = {
    BASE: Contender(
        "plain torch as open_lth runs it: NCHW, stock modules, functional ReLU",
        lambda case: Loop(case, torch.contiguous_format).ready(),
    ),
    "torch-nhwc": Contender("the same, channels_last", lambda case: Loop(case, _LAST).ready()),
    "torch-compile": Contender("torch.compile, channels_last", _compiled(None), _no_compiler),
    "torch-compile-max": Contender(
        "torch.compile, max-autotune, channels_last", _compiled("max-autotune"), _no_compiler
    ),
    "torch-graph": Contender(
        "the whole step in a CUDA graph, channels_last", lambda case: Graph(case).ready(), _no_gpu
    ),
    "memsave": Contender(
        "memsave_torch's technique, channels_last", lambda case: Loop(case, _LAST, memsave).ready()
    ),
    "eager": Contender("the eager engine", _engine("eager")),
    "lean": Contender("the lean engine", _engine("lean")),
    "fused": Contender("the fused engine", _engine("fused"), _fused_cannot),
}


def forget_compiled() -> None:
    """torch.compile gives up on a forward that it compiled eight times; networks share theirs."""
    with contextlib.suppress(AttributeError):
        torch.compiler.reset()
