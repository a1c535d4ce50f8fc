"""The lean engine: the eager engine over a converted network, which keeps one tensor a layer. On a
GPU a whole step, from the images' numbers to the optimiser, is one CUDA graph."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gammabeta import lean
from gammabeta.engine import graphs
from gammabeta.engine.eager import EagerEngine, make_optimizer
from gammabeta.passes import keep_freed_memory

if TYPE_CHECKING:
    from gammabeta.processes import Processes


class LeanEngine(EagerEngine):
    """Takes every run that the eager engine takes. conversions: what became of each layer."""

    name = "lean"

    def prepare(self, across: "Processes | None") -> None:
        self.conversions = lean.convert(self.model, across)
        if self.device.type == "cpu":
            keep_freed_memory()
        super().prepare(across)  # those that stayed stock
        # Adam counts its steps on the CPU, and processes wait for each other.
        alone = self.processes is None and self.spec.optimizer == "sgd"
        self._graphed: graphs.GraphedSteps | None = None
        if alone and graphs.are_usable(self.device):
            self._graph()

    def _graph(self) -> None:
        self._graphed = graphs.GraphedSteps(lambda *drawn: self.learn(drawn, len(drawn[0])))
        if self.optimizer is not None:
            self.optimizer = make_optimizer(self.spec, self.subset, self.leaves, fused=True)
            for group in self.optimizer.param_groups:  # a graph reads it where it lies
                group["lr"] = torch.full((), group["base_lr"], device=self.device)
            self._factor = 1.0

    def step(self, start: int, stop: int, factor: float) -> None:
        if self._graphed is None:
            super().step(start, stop, factor)
        else:
            self.set_rates(factor)
            self._graphed(*self.batches.drawn(start, stop))

    def set_rates(self, factor: float) -> None:
        if self._graphed is None:
            super().set_rates(factor)
        elif self.optimizer is not None and factor != self._factor:
            self._factor = factor
            for group in self.optimizer.param_groups:
                group["lr"].fill_(group["base_lr"] * factor)

    def load(self, state: Mapping[str, Tensor]) -> None:
        super().load(state)
        if self._graphed is not None:  # the optimiser's state lies elsewhere now
            self._graphed = graphs.GraphedSteps(self._graphed.learn)
