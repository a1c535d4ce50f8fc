"""A network as steps that compaction can judge and change: a node, and how it treats channels.

trace.py and reader.py make one of any module.
"""

import copy
from dataclasses import dataclass, field
from typing import Any

from gammabeta.compact.network import Network, Node

# How a node treats the channels of what it reads: it mixes them, works on each alone, adds two
# tensors, takes every place of a channel apart, puts tensors one behind another, or nobody knows.
MIXES, EACH, ADDS, FLATTENS, JOINS, OPAQUE = (
    "mixes", "each", "adds", "flattens", "joins", "opaque",
)  # fmt: skip

LINES = {"aten.unsqueeze.default", "aten.squeeze.dim"}  # (N, C, L) to (N, C, 1, L) and back
PRELU = "aten.prelu.default"
AVERAGE_POOLS = {f"aten.avg_pool{n}d.default" for n in (1, 2, 3)}
MEAN = "aten.mean.dim"
# Of a channel that is one number everywhere these make that number again (average pooling not
# always: analyse.py), whatever they make of others. With the dimensions of what they read.
POOLS = {
    MEAN: 0,
    **{
        f"aten.{name}{n}d.{overload}": n + 2
        for name, overload in (
            ("max_pool", "default"), ("avg_pool", "default"), ("adaptive_avg_pool", "default"),
            ("upsample_nearest", "vec"), ("_upsample_nearest_exact", "vec"),
        )
        for n in (1, 2, 3)
    },
    "aten.upsample_bilinear2d.vec": 4,
    "aten.unsqueeze.default": 3,
    "aten.squeeze.dim": 4,
}  # fmt: skip


@dataclass
class Step:
    """A node and what compaction must know of it.

    channels: of its result (dimension 1), 0 where it has none. layer, norm: the module's names of a
    convolution or linear layer and of the BatchNorm that is folded into it or that it is. origin:
    which of the layer's channels its channels once were.
    """

    node: Node
    kind: str
    channels: int
    layer: str = ""
    norm: str = ""
    origin: list[int] = field(default_factory=list)

    @property
    def grouped(self) -> bool:
        return self.node.op == "conv" and self.node.settings["groups"] > 1

    @property
    def by_channel(self) -> tuple[str, ...]:
        """Of a step that works on each channel alone: its tensors with a row a channel."""
        if self.node.op == "affine":
            return ("scale", "shift")
        alone = self.node.op == "call" and self.node.settings["target"] == PRELU
        if alone and self.node.tensors["constant_0"].numel() > 1:
            return ("constant_0",)
        return ()


@dataclass
class Graph:
    """Steps in order, by name; the first is the input. Floating tensors are fp64. conditions: what
    sizes of images must fulfil (sizes.py)."""

    steps: dict[str, Step]
    output: str
    conditions: list[Any] = field(default_factory=list)

    def network(self, about: dict[str, Any] | None = None) -> Network:
        """What runs it. Tensors are not copied."""
        nodes = [step.node for step in self.steps.values()]
        return Network(nodes, self.output, about, self.conditions).eval()

    def users(self) -> dict[str, list[Step]]:
        """Who reads the result of each step."""
        found: dict[str, list[Step]] = {name: [] for name in self.steps}
        for step in self.steps.values():
            for name in set(step.node.inputs):
                found[name].append(step)
        return found

    def drop_unused(self) -> list[Step]:
        """Remove what the output does not need; returns it."""
        needed = {self.output, next(iter(self.steps))}
        for name in reversed(self.steps):
            if name in needed:
                needed.update(self.steps[name].node.inputs)
        dropped = [step for name, step in self.steps.items() if name not in needed]
        self.steps = {name: step for name, step in self.steps.items() if name in needed}
        return dropped

    def replace(self, old: str, new: str) -> None:
        """Whoever reads `old` reads `new` from now on."""
        for step in self.steps.values():
            step.node.inputs = tuple(new if name == old else name for name in step.node.inputs)
        if self.output == old:
            self.output = new

    def copy(self) -> "Graph":
        return copy.deepcopy(self)
