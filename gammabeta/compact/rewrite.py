"""Removing channels without changing what the network computes, to a fixpoint.

A class of channels (see slots.py) may go if every layer that reads one of them loses nothing:
    free     its weights for the channel are zero, or the channel is always zero
    bias     the channel is a constant c and the layer pads nothing: c times the weights is a bias
    merge    the same behind zero padding, where a bias is wrong at the border: the weights go to
             another constant channel k of the same layers, times c_j / c_k
and if no step that is not understood sees it. No layer ever loses its last channel.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from gammabeta.compact.analyse import constants, pads
from gammabeta.compact.fold import drop_constant_branches, fold
from gammabeta.compact.graph import EACH, MIXES, Graph, Step
from gammabeta.compact.ledger import Ledger
from gammabeta.compact.slots import Ints, Slots, reads, whole

_FREE, _BIAS, _MERGE, _READ = range(4)


def shrink(graph: Graph) -> Ledger:
    """Fold and remove, in place; returns what happened to every channel of every layer."""
    ledger = Ledger(graph)
    while True:
        fold(graph)
        values = constants(graph)
        for step in drop_constant_branches(graph, values):
            ledger.removed(step, range(len(step.origin)), "its branch adds a constant, moved on")
        fold(graph)
        plan = _Plan(graph, constants(graph))
        for step in graph.steps.values():
            ledger.kept(step, [plan.why(step, channel) for channel in range(len(step.origin))])
        if not plan.gone.any():
            return ledger
        held = set(plan.into.values())
        for step in graph.steps.values():
            classes = plan.slots.classes[step.node.name].tolist()
            ledger.holds(step, [place for place, each in enumerate(classes) if each in held])
        _move_constants(plan)
        for step in graph.steps.values():
            lost = np.flatnonzero(plan.gone[plan.slots.classes[step.node.name]]).tolist()
            for channel in lost if step.origin else ():
                ledger.removed(step, [channel], plan.why(step, channel))
        _cut(graph, plan)


class _Plan:
    """What happens to each class: gone (classes,), and for a merged one the class it goes into."""

    def __init__(self, graph: Graph, values: dict[str, Tensor]) -> None:
        self.graph, self.values = graph, values
        self.slots = Slots(graph)
        count = self.slots.count
        self.blocked: dict[int, str] = {}  # class -> who needs it
        self.how = np.zeros(count, dtype=np.int64)  # the hardest of its reads
        self.status: dict[str, Ints] = {}  # layer -> how it reads each input channel (I,)
        self.merges: dict[int, set[str]] = {}  # class -> layers behind padding
        self.into: dict[int, int] = {}
        self.last: set[int] = set()
        self._judge()
        self._pair_up()
        self.gone = np.ones(count, dtype=bool)
        self.gone[list(self.blocked)] = False
        self.gone[[each for each in self.merges if each not in self.into]] = False
        self._keep_one()

    def _judge(self) -> None:
        for name, why in whole(self.graph).items():
            for each in self.slots.classes[name].tolist():
                self.blocked.setdefault(each, why)
        for step in self.graph.steps.values():
            if (weights := reads(step)) is None:
                continue
            source = step.node.inputs[0]
            status = _status(step, weights, self.values[source])
            self.status[step.node.name] = status
            for each, how in zip(self.slots.classes[source].tolist(), status, strict=True):
                self.how[each] = max(self.how[each], how)
                if how == _READ:
                    self.blocked.setdefault(each, f"it varies where {step.layer} reads it")
                elif how == _MERGE:
                    self.merges.setdefault(each, set()).add(step.node.name)
        for each in self.blocked:
            self.merges.pop(each, None)

    def _pair_up(self) -> None:
        """Of constant classes that the same padded layers read, one stays: the largest number, so
        that no ratio is large."""
        alike: dict[frozenset[str], list[int]] = {}
        for each, layers in self.merges.items():
            alike.setdefault(frozenset(layers), []).append(each)
        for together, classes in alike.items():
            sizes = [min(self._seen(name, each) for name in together) for each in classes]
            best = classes[sizes.index(max(sizes))]
            self.into.update({each: best for each in classes if each != best})

    def _seen(self, layer: str, each: int) -> float:
        source = self.graph.steps[layer].node.inputs[0]
        return float(self.values[source][self.behind_padding(layer, each)].abs())

    def behind_padding(self, layer: str, each: int) -> int:
        """The channel of a class that a padded layer reads as a constant: its largest number."""
        source = self.graph.steps[layer].node.inputs[0]
        fits = (self.slots.classes[source] == each) & (self.status[layer] == _MERGE)
        channels = np.flatnonzero(fits)
        return int(channels[self.values[source][channels].abs().argmax()])

    def _keep_one(self) -> None:
        for name, step in self.graph.steps.items():
            classes = self.slots.classes[name]
            if step.channels and self.gone[classes].all():
                self.last.add(int(classes[0]))
                self.gone[classes[0]] = False
                self.into.pop(int(classes[0]), None)

    def why(self, step: Step, channel: int) -> str:
        """Why a channel of a layer stays or goes."""
        each = int(self.slots.classes[step.node.name][channel])
        if each in self.blocked:
            alone = self.values[step.node.name][channel]
            also = "" if alone.isnan() else f"constant {alone:.6g} here, but "
            return also + self.blocked[each]
        if each in self.last:
            return "the last channel of a layer"
        if each in self.into:
            where = np.flatnonzero(self.slots.classes[step.node.name] == self.into[each])
            name = f"channel {step.origin[where[0]]}" if len(where) else "another constant channel"
            return f"constant behind zero padding: merged into {name}"
        if each in self.merges:
            return "the one constant channel that zero padding needs"
        if self.how[each] == _BIAS:
            return "constant: moved into the bias of what reads it"
        return "dead: always zero, or nothing reads it"


def _status(step: Step, weights: Tensor, value: Tensor) -> Ints:
    """For each input channel of a layer (I,), which of the four it is."""
    how = torch.full((len(value),), _MERGE if pads(step) else _BIAS)
    how[value.isnan()] = _READ
    how[(value == 0) | ~weights] = _FREE
    return how.numpy().astype(np.int64)


def _move_constants(plan: _Plan) -> None:
    """What the layers lose with the channels that go, given to their biases and merged channels."""
    for step in plan.graph.steps.values():
        if (status := plan.status.get(step.node.name)) is None:
            continue
        source = step.node.inputs[0]
        value, classes = plan.values[source], plan.slots.classes[source]
        tensors = step.node.tensors
        weight = tensors["weight"]
        for channel in np.flatnonzero(plan.gone[classes]):
            if status[channel] == _BIAS:
                lost = weight[:, channel].reshape(len(weight), -1).sum(1)
                bias = tensors.get("bias", weight.new_zeros(len(weight)))
                tensors["bias"] = bias + lost * value[channel]
            elif status[channel] == _MERGE:
                kept = plan.behind_padding(step.node.name, plan.into[int(classes[channel])])
                weight[:, kept] += weight[:, channel] * (value[channel] / value[kept])


def _cut(graph: Graph, plan: _Plan) -> None:
    stays = {
        name: torch.from_numpy(np.flatnonzero(~plan.gone[classes]))
        for name, classes in plan.slots.classes.items()
    }
    for name, step in graph.steps.items():
        here, tensors = stays[name], step.node.tensors
        if step.kind == MIXES:
            _select(tensors, ("weight", "bias"), here)
            step.origin = [step.origin[channel] for channel in here.tolist()]
            if step.grouped:
                size = step.channels // step.node.settings["groups"]
                step.node.settings["groups"] = len(here) // size
            else:
                tensors["weight"] = tensors["weight"][:, stays[step.node.inputs[0]]]
        elif step.kind == EACH:
            _select(tensors, step.by_channel, here)
            step.origin = [step.origin[channel] for channel in here.tolist()] if step.origin else []
        step.channels = len(here)


def _select(tensors: dict[str, Tensor], keys: Iterable[str], rows: Tensor) -> None:
    for key in keys:
        if key in tensors:
            tensors[key] = tensors[key][rows]
