"""The nodes of an exported program to steps: each convolution, BatchNorm, linear layer and so on
is one operation there, however the module wrote it.

What is not known here becomes a call that is opaque: it is computed as it is, and the channels that
enter and leave it are kept whole. That is always right, so nothing unknown is an error.
"""

import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from gammabeta.compact.fold import scale_and_shift
from gammabeta.compact.graph import (
    ADDS,
    EACH,
    FLATTENS,
    JOINS,
    LINES,
    MEAN,
    MIXES,
    OPAQUE,
    POOLS,
    PRELU,
    Graph,
    Step,
)
from gammabeta.compact.network import Node, find_operation
from gammabeta.compact.sizes import conditions
from gammabeta.errors import InputError

# Copies. A view of what was copied may not fit the memory of the original: views become reshapes.
_SAME = {"aten.clone.default", "aten.alias.default", "aten.detach.default", "aten.dropout.default",
         "aten.contiguous.default", "aten.feature_dropout.default"}  # fmt: skip
_RESHAPE = "aten.reshape.default"
_VIEWS = {"aten.view.default", _RESHAPE, "aten.flatten.using_ints", "aten._unsafe_view.default"}
_NORMS = {"aten.batch_norm.default", "aten._native_batch_norm_legit_no_training.default"}
_CONVOLUTIONS = {"aten.convolution.default"} | {
    f"aten.conv{n}d.{overload}" for n in (1, 2, 3) for overload in ("default", "padding")
}
# A number at a place depends on that place's number alone; what else they take are no tensors.
_POINTWISE = {
    f"aten.{name}.default"
    for name in (
        "relu", "relu6", "hardtanh", "gelu", "silu", "sigmoid", "tanh", "hardswish", "hardsigmoid",
        "leaky_relu", "elu", "celu", "selu", "mish", "softplus", "log_sigmoid", "threshold",
        "hardshrink", "softshrink", "clamp", "clamp_min", "clamp_max", "abs", "neg", "exp", "erf",
        "sqrt", "square",
    )
} | {
    f"aten.{name}.{overload}"
    for overload, names in (
        ("Tensor", ("add", "sub", "mul", "div")),
        ("Scalar", ("add", "sub", "mul", "div", "rsub")),
        ("Tensor_Scalar", ("pow",)),
    )
    for name in names
}  # fmt: skip


class Reader:
    """Turns the nodes of an exported program into steps, one after another."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        self.program = program
        self.steps: dict[str, Step] = {}
        self.names: dict[fx.Node, str] = {}  # of the step that computes it
        self.tensors: dict[fx.Node, tuple[str, Tensor]] = {}  # parameters, buffers, constants

    def read(self) -> Graph:
        signature = self.program.graph_signature
        places = (
            signature.inputs_to_parameters
            | signature.inputs_to_buffers
            | signature.inputs_to_lifted_tensor_constants
        )
        for name in signature.buffers_to_mutate.values():
            raise InputError(
                f"this network changes its buffer '{name}' at every call, in evaluation mode too: "
                "let its forward do that only if self.training"
            )
        output = None
        needed = _needed(self.program.graph)  # not what only checks sizes
        for node in self.program.graph.nodes:
            if node.op == "placeholder" and node.name in places:
                self.tensors[node] = self._tensor(places[node.name])
            elif node.op == "placeholder":
                if self.steps or not isinstance(node.meta.get("val"), Tensor):
                    raise InputError(
                        "this network takes more than one tensor: give a module whose forward "
                        "takes the images alone"
                    )
                self._add(node, Node(node.name, "input"), OPAQUE)
            elif node.op == "output":
                (results,) = node.args
                if not isinstance(results, Sequence) or len(results) != 1:
                    raise InputError(
                        "this network returns more than one tensor: give a module whose forward "
                        "returns the logits alone"
                    )
                (output,) = results
            elif node.op == "call_function" and node in needed:
                self._call(node)
        if not isinstance(output, fx.Node) or output not in self.names:
            raise InputError("this network returns no tensor that depends on its images")
        graph = Graph(self.steps, self.names[output], conditions(self.program))
        graph.drop_unused()
        return graph

    def _tensor(self, name: str) -> tuple[str, Tensor]:
        value = self.program.state_dict.get(name, self.program.constants.get(name))
        if not isinstance(value, Tensor):
            raise InputError(f"'{name}' of this network is no tensor that can be written to a file")
        value = value.detach().cpu().clone()
        if value.is_floating_point():
            value = value.double()
            if not bool(value.isfinite().all()):
                raise InputError(f"'{name}' of this network is not finite: train it again")
        return name, value

    def _call(self, node: fx.Node) -> None:
        target = _target(node)
        if target in _NORMS:
            if target == "aten.batch_norm.default" and not node.args[5] and self._norm(node, node):
                return
        elif target == "operator.getitem" and node.args[1] == 0:
            source = node.args[0]
            assert isinstance(source, fx.Node)
            if _target(source) in _NORMS and self._norm(node, source):
                return
        elif target in _SAME and _evaluates(node):
            (first, *_) = node.args
            assert isinstance(first, fx.Node)
            if first in self.tensors:  # a copy of a parameter
                self.tensors[node] = self.tensors[first]
            else:
                self.names[node] = self.names[first]
            return
        elif target in _CONVOLUTIONS:
            if self._conv(node, target):
                return
        elif target == "aten.linear.default" and self._linear(node):
            return
        self._plain(node, target)

    def _input(self, node: fx.Node) -> str | None:
        """The step that a node reads first, or None where that is a parameter."""
        first = node.args[0] if node.args else None
        return self.names.get(first) if isinstance(first, fx.Node) else None

    def _conv(self, node: fx.Node, target: str) -> bool:
        names: tuple[str, ...] = ("input", "weight", "bias", "stride", "padding", "dilation")
        general = target == "aten.convolution.default"
        names += ("transposed", "output_padding", "groups") if general else ("groups",)
        given = dict(zip(names, node.args, strict=False)) | node.kwargs
        weight, bias = self._held(given.get("weight")), self._held(given.get("bias"))
        shape = _shape(given["input"])
        known = bias is not None or given.get("bias") is None
        if weight is None or not known or self._input(node) is None or given.get("transposed"):
            return False
        kernel = weight[1].shape[2:]
        if len(shape) != weight[1].dim():  # one image without N
            return False
        padding = given.get("padding", 0)
        dilation = _spread(given.get("dilation", 1), len(kernel))
        if padding == "valid":
            padding = 0
        elif padding == "same":
            if any(size % 2 == 0 for size in kernel):
                return False  # pads more at one side than at the other
            padding = [d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True)]
        settings = {
            "stride": _spread(given.get("stride", 1), len(kernel)),
            "padding": _spread(padding, len(kernel)),
            "dilation": dilation, "groups": given.get("groups", 1),
        }  # fmt: skip
        self._layer(node, "conv", weight, bias, settings)
        return True

    def _linear(self, node: fx.Node) -> bool:
        given = dict(zip(("input", "weight", "bias"), node.args, strict=False)) | node.kwargs
        weight, bias = self._held(given.get("weight")), self._held(given.get("bias"))
        if weight is None or (bias is None and given.get("bias") is not None):
            return False
        if self._input(node) is None:
            return False
        if len(_shape(given["input"])) != 2:
            return False
        self._layer(node, "linear", weight, bias, {})
        return True

    def _layer(
        self, node: fx.Node, op: str, weight: tuple[str, Tensor], bias: Any, settings: Any
    ) -> None:
        layer = weight[0].rpartition(".")[0] or op
        tensors = {"weight": weight[1].clone()} | ({"bias": bias[1].clone()} if bias else {})
        source = self._input(node)
        assert source is not None
        made = Node(self._free(layer), op, (source,), settings, tensors)
        step = self._add(node, made, MIXES)
        step.layer, step.origin = layer, list(range(step.channels))

    def _norm(self, node: fx.Node, source: fx.Node) -> bool:
        """A BatchNorm in evaluation mode is x scale + shift; `node` is its result."""
        x, weight, bias, mean, variance = source.args[:5]
        eps = source.args[7] if _target(source) == "aten.batch_norm.default" else source.args[6]
        held = [self._held(each) for each in (weight, bias, mean, variance)]
        before = self._input(source)
        if held[2] is None or held[3] is None or before is None or len(_shape(x)) < 2:
            return False
        for given, found in zip((weight, bias), held[:2], strict=True):
            if given is not None and found is None:
                return False  # computed, not kept
        assert isinstance(eps, float)
        gamma, beta = (None if each is None else each[1] for each in held[:2])
        tensors = scale_and_shift(gamma, beta, held[2][1], held[3][1], eps)
        layer = held[2][0].rpartition(".")[0]
        made = Node(self._free(layer), "affine", (before,), {}, tensors)
        step = self._add(node, made, EACH)
        step.norm, step.origin = layer, list(range(step.channels))
        return True

    def _plain(self, node: fx.Node, target: str) -> None:
        """A call. Known ones are told apart; the rest is opaque."""
        inputs: list[str] = []
        tensors: dict[str, Tensor] = {}

        def encode(value: Any) -> Any:
            if isinstance(value, fx.Node):
                if value in self.tensors:
                    key = f"constant_{len(tensors)}"
                    tensors[key] = self.tensors[value][1].clone()
                    return {"tensor": key}
                if value not in self.names:  # a graph within the graph
                    raise InputError(f"'{target}' of this network is nothing that a file can hold")
                inputs.append(self.names[value])
                return {"input": len(inputs) - 1}
            if isinstance(value, list | tuple):
                return [encode(each) for each in value]
            if value is None or isinstance(value, bool | int | float | str):
                return value
            if isinstance(value, torch.dtype):
                return {"dtype": str(value).removeprefix("torch.")}
            if isinstance(value, torch.device | torch.layout | torch.memory_format):
                return None  # torch's own choice is the right one
            raise InputError(f"'{target}' takes a {type(value).__name__}, which no file can hold")

        try:
            find_operation(target)
        except ValueError:
            raise InputError(
                f"this network uses '{target}', which is no operation of torch's own: compact the "
                "part without it"
            ) from None
        args = [encode(each) for each in node.args]
        kwargs = {key: encode(each) for key, each in node.kwargs.items()}
        kind = self._kind(node, target, inputs, list(tensors.values()))
        if target in _VIEWS and target != "aten.flatten.using_ints":
            target = _RESHAPE
        settings = {"target": target, "args": args, "kwargs": kwargs}
        made = Node(self._free(node.name), "call", tuple(inputs), settings, tensors)
        if kind == FLATTENS:
            made.op, made.settings, made.inputs = "flatten", {}, tuple(inputs[:1])
        self._add(node, made, kind)

    def _kind(self, node: fx.Node, target: str, inputs: list[str], tensors: list[Tensor]) -> str:
        """tensors: those that the network keeps, among what the node takes."""
        first = node.args[0] if node.args else None
        if target == "aten.cat.default":
            return self._joining(node, inputs, tensors)
        before, after = _shape(first), _shape(node)
        if not inputs or self.names.get(first) != inputs[0]:  # type: ignore[arg-type]
            return OPAQUE
        alone = len(inputs) == 1 and len(after) >= 2
        if target == PRELU and alone and tensors:
            return EACH
        if target in _POINTWISE and alone and not tensors:
            return EACH
        if target in POOLS and alone and not tensors:
            if target in LINES:
                return EACH if len(before) == POOLS[target] and node.args[1] in (2, -2) else OPAQUE
            if target != MEAN:
                return EACH if len(before) == POOLS[target] else OPAQUE
            over = node.args[1] if isinstance(node.args[1], list | tuple) else ()
            places = {int(each) % len(before) for each in over}  # type: ignore[arg-type]
            return EACH if places == set(range(2, len(before))) else OPAQUE
        if target == "aten.add.Tensor" and len(inputs) == 2 and not node.kwargs:
            second = node.args[1]
            same = len(after) >= 2 and [str(n) for n in before] == [str(n) for n in _shape(second)]
            return ADDS if same else OPAQUE
        if target in _VIEWS and len(before) >= 2 and len(after) == 2:
            same = str(before[0]) == str(after[0])  # then all the rest is in the other one
            return FLATTENS if same and isinstance(before[1], int) else OPAQUE
        return OPAQUE

    def _joining(self, node: fx.Node, inputs: list[str], tensors: list[Tensor]) -> str:
        """Of a concatenation: whether it is one of channels."""
        parts, *rest = node.args
        assert isinstance(parts, list | tuple)
        dimension = rest[0] if rest else node.kwargs.get("dim", 0)
        shapes = [_shape(part) for part in parts]
        ranks = {len(shape) for shape in shapes}
        if tensors or len(inputs) != len(parts) or len(ranks) != 1 or min(ranks) < 2:
            return OPAQUE
        assert isinstance(dimension, int)
        channels = dimension % ranks.pop() == 1 and _numbers(shape[1] for shape in shapes)
        return JOINS if channels else OPAQUE

    def _held(self, value: Any) -> tuple[str, Tensor] | None:
        return self.tensors.get(value) if isinstance(value, fx.Node) else None

    def _free(self, name: str) -> str:
        """The name, or NAME:2 where a module is called twice."""
        free, count = name, 1
        while free in self.steps:
            count += 1
            free = f"{name}:{count}"
        return free

    def _add(self, source: fx.Node, node: Node, kind: str) -> Step:
        shape = _shape(source)
        channels = shape[1] if len(shape) >= 2 else 0
        if not isinstance(channels, int):
            # Flattened, its width follows from the size of the images, until a layer reads it: that
            # fixes it to what it was when the graph was drawn.
            channels = channels.node.hint or 0 if len(shape) == 2 else 0
        step = Step(node, kind if channels else OPAQUE, channels)
        self.steps[node.name] = step
        self.names[source] = node.name
        return step


def _target(node: fx.Node) -> str:
    if isinstance(node.target, torch._ops.OpOverload):
        return str(node.target)
    name = getattr(node.target, "__name__", str(node.target))
    own = (getattr(module, name, None) for module in (operator, math))
    arithmetic = name.startswith("sym_") or any(each is node.target for each in own)
    return f"operator.{name}" if arithmetic else str(name)


def _shape(node: Any) -> tuple[Any, ...]:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def _numbers(sizes: Iterable[Any]) -> bool:
    """Whether none of them depends on how many images there are, or on how large they are."""
    return all(isinstance(size, int) for size in sizes)


def _spread(value: Any, count: int) -> list[int]:
    """A number, or one a dimension, as `count` numbers."""
    values = [value] if isinstance(value, int) else list(value)
    return values * count if len(values) == 1 else values


def _needed(graph: fx.Graph) -> set[fx.Node]:
    """The nodes that the results depend on."""
    found: set[fx.Node] = set()
    waiting = [node for node in graph.nodes if node.op == "output"]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += node.all_input_nodes
    return found


def _evaluates(node: fx.Node) -> bool:
    """A dropout that is off; what is no dropout at all."""
    return "dropout" not in str(node.target) or not node.args[2]
