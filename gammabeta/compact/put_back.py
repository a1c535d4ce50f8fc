"""Gammas below the threshold that were set to zero for nothing get their values back.

A zero is worth what it changes where a channel goes for it. On a residual stream, say, it often
removes nothing, because another layer writes the channel too. Which zeros are idle is tried, not
derived: the graph with some of them back must lose every channel that it lost without.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from gammabeta.compact.fold import scale_and_shift
from gammabeta.compact.graph import Graph
from gammabeta.compact.rewrite import shrink
from gammabeta.compact.snap import batch_norms

Gamma = tuple[str, int]  # a BatchNorm's name and a channel


def put_back(
    graph: Graph, snapped: nn.Module, gammas: Mapping[str, Tensor], zeros: Mapping[str, list[int]]
) -> dict[str, list[int]]:
    """Give idle zeros their values back, in `snapped` and in its graph: their channels, by layer.

    gammas: what every BatchNorm had (C,). zeros: the channels that became zero. Those that stay
    zero are on channels that go, or needed: with one of these back, another channel would stay.
    """
    return _Trials(graph, snapped, gammas).run(zeros)


class _Trials:
    def __init__(self, graph: Graph, snapped: nn.Module, gammas: Mapping[str, Tensor]) -> None:
        self.graph, self.gammas = graph, gammas
        self.norms = batch_norms(snapped)

    def run(self, zeros: Mapping[str, list[int]]) -> dict[str, list[int]]:
        shrunk = self.graph.copy()
        ledger = shrink(shrunk)
        self.gone = ledger.gone
        stays: dict[str, list[set[int]]] = {}  # of each use of a BatchNorm
        for step in shrunk.steps.values():
            if step.norm and step.origin:
                kept = {each for each in step.origin if not ledger.is_needed(step, each)}
                stays.setdefault(step.norm, []).append(kept)
        idle = [
            (name, channel)
            for name, channels in zeros.items()
            for channel in channels
            if all(channel in kept for kept in stays.get(name, [set()]))
        ]
        found: dict[str, list[int]] = {}
        for name, channel in self._fitting(idle):
            found.setdefault(name, []).append(channel)
        return found

    def _fitting(self, idle: Sequence[Gamma]) -> list[Gamma]:
        """Those that can be back together: all of them, or what fits of either half."""
        if not idle:
            return []
        self._set(idle, back=True)
        if shrink(self.graph.copy()).gone >= self.gone:
            return list(idle)
        self._set(idle, back=False)
        half = len(idle) // 2
        return self._fitting(idle[:half]) + self._fitting(idle[half:]) if half else []

    @torch.no_grad()
    def _set(self, chosen: Sequence[Gamma], *, back: bool) -> None:
        for name, channel in chosen:
            self.norms[name].weight[channel] = self.gammas[name][channel] if back else 0.0
        for step in self.graph.steps.values():
            if step.node.op == "affine" and step.norm in {name for name, _ in chosen}:
                norm = self.norms[step.norm]
                assert norm.running_mean is not None
                assert norm.running_var is not None
                gamma, beta, mean, variance = (
                    each.detach().double()
                    for each in (norm.weight, norm.bias, norm.running_mean, norm.running_var)
                )
                step.node.tensors = scale_and_shift(gamma, beta, mean, variance, norm.eps)
