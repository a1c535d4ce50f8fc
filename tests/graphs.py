"""Small graphs for the tests of compaction, drawn step by step, without tracing anything."""

import torch

from gammabeta.compact.graph import ADDS, EACH, FLATTENS, JOINS, MIXES, OPAQUE, Graph, Step
from gammabeta.compact.network import Node


class Builder:
    """Adds steps one after another; every method returns the name of its result."""

    def __init__(self, channels=3, seed=0):
        self.steps = {}
        self.draws = torch.Generator().manual_seed(seed)
        self.add(Node("images", "input"), OPAQUE, channels)

    def add(self, node, kind, channels):
        node.name = node.name if node.name not in self.steps else f"{node.name}{len(self.steps)}"
        self.steps[node.name] = Step(node, kind, channels)
        return node.name

    def channels(self, name):
        return self.steps[name].channels

    def normal(self, *shape):
        return torch.randn(shape, generator=self.draws, dtype=torch.float64)

    def conv(self, x, channels, kernel=3, stride=1, padding=1, groups=1, bias=False, dilation=1):
        settings = {"stride": [stride, stride], "padding": [padding, padding]}
        settings |= {"dilation": [dilation, dilation], "groups": groups}
        tensors = {"weight": self.normal(channels, self.channels(x) // groups, kernel, kernel)}
        tensors |= {"bias": self.normal(channels)} if bias else {}
        return self._layer(Node("conv", "conv", (x,), settings, tensors), channels)

    def linear(self, x, channels):
        tensors = {"weight": self.normal(channels, self.channels(x)), "bias": self.normal(channels)}
        return self._layer(Node("linear", "linear", (x,), {}, tensors), channels)

    def _layer(self, node, channels):
        name = self.add(node, MIXES, channels)
        self.steps[name].layer, self.steps[name].origin = name, list(range(channels))
        return name

    def norm(self, x, off, sign=1.0):
        """off: the channels whose gamma is 0. sign: of their beta; 0 makes it 0."""
        scale, shift = self.normal(self.channels(x)), self.normal(self.channels(x))
        for channel in off:
            scale[channel], shift[channel] = 0.0, sign * shift[channel].abs()
        return self.add(
            Node("norm", "affine", (x,), {}, {"scale": scale, "shift": shift}),
            EACH,
            self.channels(x),
        )

    def call(self, target, inputs, *args, kind=EACH, channels=None):
        args = [*({"input": place} for place in range(len(inputs))), *args]
        node = Node("call", "call", tuple(inputs), {"target": target, "args": args, "kwargs": {}})
        return self.add(node, kind, channels or self.channels(inputs[0]))

    def relu(self, x):
        return self.call("aten.relu.default", [x])

    def plus(self, x, y):
        return self.call("aten.add.Tensor", [x, y], kind=ADDS)

    def join(self, *parts):
        """Their channels one behind another."""
        args = [[{"input": place} for place in range(len(parts))], 1]
        settings = {"target": "aten.cat.default", "args": args, "kwargs": {}}
        channels = sum(self.channels(part) for part in parts)
        return self.add(Node("join", "call", tuple(parts), settings), JOINS, channels)

    def flatten(self, x, places):
        return self.add(Node("flatten", "flatten", (x,)), FLATTENS, self.channels(x) * places)

    def head(self, x, classes=3):
        """Mean over places, then a linear layer: a graph."""
        return Graph(self.steps, self.linear(self.call("aten.mean.dim", [x], [2, 3]), classes))


def values(graph, images):
    """The result of every step, computed one by one: the slow twin of the analysis."""
    found = {}
    for name in graph.steps:
        part = Graph(graph.steps, name)
        found[name] = part.network()(images)
    return found


SIZES = ((17, 17), (22, 24))  # a random network halves them twice and can still pool


def difference(graph, other, sizes=((9, 9), (12, 14))):
    """The largest difference of the results over the largest result, on random images."""
    worst = 0.0
    channels = next(iter(graph.steps.values())).channels
    for size in sizes:
        images = torch.randn(3, channels, *size, dtype=torch.float64)
        truth, found = graph.network()(images), other.network()(images)
        most = float(truth.abs().max()) or 1.0
        worst = max(worst, float((truth - found).abs().max()) / most)
    return worst
