"""Which channels can only go together. A slot is one channel of one step's result; slots that are
tied by an addition, a BatchNorm, a pooling or a group of a convolution form one class, and a class
is removed whole or not at all."""

import numpy as np
import torch

from gammabeta.compact.graph import ADDS, EACH, FLATTENS, JOINS, MIXES, OPAQUE, Graph, Step

Ints = np.ndarray[tuple[int], np.dtype[np.int64]]


class Slots:
    """classes: of a step, the class of each of its channels (C,); they count up from 0."""

    def __init__(self, graph: Graph) -> None:
        self.first: dict[str, int] = {}
        total = 0
        for name, step in graph.steps.items():
            self.first[name] = total
            total += step.channels
        self._parent = np.arange(total, dtype=np.int64)
        for step in graph.steps.values():
            self._tie(graph, step)
        roots = np.array([self._root(slot) for slot in range(total)], dtype=np.int64)
        _, numbered = np.unique(roots, return_inverse=True)
        self.count = int(numbered.max()) + 1 if total else 0
        self.classes: dict[str, Ints] = {
            name: numbered[self.first[name] : self.first[name] + step.channels]
            for name, step in graph.steps.items()
        }

    def _tie(self, graph: Graph, step: Step) -> None:
        here = self.first[step.node.name]
        sources = [(self.first[name], graph.steps[name].channels) for name in step.node.inputs]
        if step.kind in (EACH, ADDS):
            for start, _ in sources:
                for channel in range(step.channels):
                    self._join(start + channel, here + channel)
        elif step.kind == JOINS:
            for start, channels in sources:
                for channel in range(channels):
                    self._join(start + channel, here + channel)
                here += channels
        elif step.kind == FLATTENS:
            start, channels = sources[0]
            places = step.channels // channels
            for slot in range(step.channels):
                self._join(start + slot // places, here + slot)
        elif step.grouped:  # whole groups only: what goes in and what comes out
            start, channels = sources[0]
            groups = step.node.settings["groups"]
            for group in range(groups):
                into, out = channels // groups, step.channels // groups
                for slot in range(into):
                    self._join(start + group * into, start + group * into + slot)
                for slot in range(out):
                    self._join(start + group * into, here + group * out + slot)

    def _root(self, slot: int) -> int:
        while self._parent[slot] != slot:
            self._parent[slot] = self._parent[self._parent[slot]]
            slot = int(self._parent[slot])
        return slot

    def _join(self, one: int, other: int) -> None:
        self._parent[self._root(one)] = self._root(other)


def whole(graph: Graph) -> dict[str, str]:
    """The steps whose every channel must stay, and why."""
    first = next(iter(graph.steps))
    kept = {first: "it is the network's input", graph.output: "it is the network's output"}
    for step in graph.steps.values():
        if step.kind != OPAQUE or step.node.op == "input":
            continue
        what = step.node.settings["target"]
        kept[step.node.name] = f"{what} makes it, whose channels stay whole"
        if what == "aten.sym_size.int" and step.node.settings["args"][1] != 1:
            continue  # asks for a size that compaction does not change
        for name in step.node.inputs:
            kept.setdefault(name, f"{what} reads it, whose channels stay whole")
    return kept


def reads(step: Step) -> torch.Tensor | None:
    """Of a layer that may lose inputs one by one: which input channels have any weight (I,)."""
    if step.kind != MIXES or step.grouped:
        return None
    weight = step.node.tensors["weight"]
    return (weight != 0).transpose(0, 1).flatten(1).any(1)
