"""Any module to nodes: torch.export draws its graph in evaluation mode, in which every convolution,
BatchNorm, linear layer and so on is one operation, however the module wrote it.

What is not known here becomes a call that is opaque: it is computed as it is, and the channels that
enter and leave it are kept whole. That is always right, so nothing unknown is an error.
"""

import contextlib
import copy
import io
import operator
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from gammabeta.compact.network import Network, Node, find_operation
from gammabeta.errors import InputError

# How a node treats the channels of what it reads.
MIXES, EACH, ADDS, FLATTENS, OPAQUE = "mixes", "each", "adds", "flattens", "opaque"

_SAME = {"aten.clone.default", "aten.alias.default", "aten.detach.default", "aten.dropout.default",
         "aten.contiguous.default", "aten.feature_dropout.default"}  # fmt: skip
POINTWISE = {
    f"aten.{name}.default"
    for name in ("relu", "relu6", "hardtanh", "gelu", "silu", "sigmoid", "tanh", "hardswish",
                 "hardsigmoid", "leaky_relu", "elu", "mish", "softplus")
}  # fmt: skip
AVERAGE_POOL, MEAN = "aten.avg_pool2d.default", "aten.mean.dim"
POOLS = {"aten.max_pool2d.default", AVERAGE_POOL, "aten.adaptive_avg_pool2d.default", MEAN}
_VIEWS = {"aten.view.default", "aten.reshape.default", "aten.flatten.using_ints",
          "aten._unsafe_view.default"}  # fmt: skip
_NORMS = {"aten.batch_norm.default", "aten._native_batch_norm_legit_no_training.default"}


@dataclass
class Step:
    """A node and what compaction must know of it.

    channels: of its result (dimension 1), 0 where it has none. layer, norm: the module's names of a
    convolution or linear layer and of the BatchNorm folded into it. origin: which of the layer's
    channels its channels once were. fixed: it only fits the resolution it was drawn at.
    """

    node: Node
    kind: str
    channels: int
    layer: str = ""
    norm: str = ""
    origin: list[int] = field(default_factory=list)
    fixed: bool = False

    @property
    def grouped(self) -> bool:
        return self.node.op == "conv" and self.node.settings["groups"] > 1


@dataclass
class Graph:
    """Steps in order, by name; the first is the input. Floating tensors are fp64."""

    steps: dict[str, Step]
    output: str

    def network(self, about: dict[str, Any] | None = None) -> Network:
        """What runs it. Tensors are not copied."""
        return Network([step.node for step in self.steps.values()], self.output, about).eval()

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


def read_graph(module: nn.Module, images: Tensor) -> Graph:
    """The graph of a module in evaluation mode that takes `images` (N, C, H, W) and returns logits.

    Any other batch size fits too. Raises InputError where the graph cannot be traced.
    """
    modes = {child: child.training for child in module.modules()}
    if len(images) < 2:
        images = torch.cat([images, images])
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.export.export(
                module.eval(), (images,), dynamic_shapes=({0: torch.export.Dim.AUTO},)
            ).run_decompositions({})
    except Exception as error:  # whatever a stranger's forward does
        line = " ".join(str(error).split())[:200]
        raise InputError(
            f"the graph of this network cannot be traced ({type(error).__name__}: {line}): give a "
            "module that takes one tensor of images and that torch.export can trace"
        ) from None
    finally:
        for child, training in modes.items():
            child.training = training
    return _Reader(program).read()


class _Reader:
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
        output = None
        for node in self.program.graph.nodes:
            if node.op == "placeholder" and node.name in places:
                self.tensors[node] = self._tensor(places[node.name])
            elif node.op == "placeholder":
                if self.steps or not isinstance(node.meta.get("val"), Tensor):
                    raise InputError("this network takes more than one tensor: compact needs one")
                self._add(node, Node(node.name, "input"), OPAQUE)
            elif node.op == "output":
                (results,) = node.args
                if not isinstance(results, Sequence) or len(results) != 1:
                    raise InputError("this network returns more than one tensor: compact needs one")
                (output,) = results
            elif node.op == "call_function":
                self._call(node)
        if not isinstance(output, fx.Node) or output not in self.names:
            raise InputError("this network returns no tensor that depends on its images")
        graph = Graph(self.steps, self.names[output])
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
            self.names[node] = self._input(node)
            return
        elif target in ("aten.conv2d.default", "aten.conv2d.padding", "aten.convolution.default"):
            if self._conv(node, target):
                return
        elif target == "aten.linear.default" and self._linear(node):
            return
        self._plain(node, target)

    def _input(self, node: fx.Node) -> str:
        (first, *_) = node.args
        assert isinstance(first, fx.Node)
        return self.names[first]

    def _conv(self, node: fx.Node, target: str) -> bool:
        names: tuple[str, ...] = ("input", "weight", "bias", "stride", "padding", "dilation")
        names += ("groups",) if "conv2d" in target else ("transposed", "output_padding", "groups")
        given = dict(zip(names, node.args, strict=False)) | node.kwargs
        weight, bias = self._held(given.get("weight")), self._held(given.get("bias"))
        shape = _shape(given["input"])
        known = weight is not None and (bias is not None or given.get("bias") is None)
        if not known or len(shape) != 4 or given.get("transposed") or weight[1].dim() != 4:  # type: ignore[index]
            return False
        assert weight is not None
        padding = given.get("padding", 0)
        dilation = _pair(given.get("dilation", 1))
        kernel = weight[1].shape[2:]
        if padding == "valid":
            padding = 0
        elif padding == "same":
            if kernel[0] % 2 == 0 or kernel[1] % 2 == 0:
                return False  # pads more at one side than at the other
            padding = [d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True)]
        settings = {
            "stride": _pair(given.get("stride", 1)), "padding": _pair(padding),
            "dilation": dilation, "groups": given.get("groups", 1),
        }  # fmt: skip
        self._layer(node, "conv", weight, bias, settings)
        return True

    def _linear(self, node: fx.Node) -> bool:
        given = dict(zip(("input", "weight", "bias"), node.args, strict=False)) | node.kwargs
        weight, bias = self._held(given.get("weight")), self._held(given.get("bias"))
        if weight is None or (bias is None and given.get("bias") is not None):
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
        made = Node(self._free(layer), op, (self._input(node),), settings, tensors)
        step = self._add(node, made, MIXES)
        step.layer, step.origin = layer, list(range(step.channels))

    def _norm(self, node: fx.Node, source: fx.Node) -> bool:
        """A BatchNorm in evaluation mode is x scale + shift; `node` is its result."""
        x, weight, bias, mean, variance = source.args[:5]
        eps = source.args[7] if _target(source) == "aten.batch_norm.default" else source.args[6]
        held = [self._held(each) for each in (weight, bias, mean, variance)]
        if held[2] is None or held[3] is None or len(_shape(x)) < 2:
            return False
        for given, found in zip((weight, bias), held[:2], strict=True):
            if given is not None and found is None:
                return False  # computed, not kept
        assert isinstance(eps, float)
        scale = (held[3][1] + eps).rsqrt()
        scale = scale if held[0] is None else held[0][1] * scale
        shift = -held[2][1] * scale
        shift = shift if held[1] is None else held[1][1] + shift
        layer = held[2][0].rpartition(".")[0]
        tensors = {"scale": scale, "shift": shift}
        made = Node(self._free(layer), "affine", (self._input(source),), {}, tensors)
        self._add(node, made, EACH).norm = layer
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
        settings = {"target": target, "args": args, "kwargs": kwargs}
        made = Node(self._free(node.name), "call", tuple(inputs), settings, tensors)
        kind = self._kind(node, target, inputs)
        if kind == FLATTENS:
            made.op, made.settings, made.inputs = "flatten", {}, tuple(inputs[:1])
        step = self._add(node, made, kind)
        # A size that was drawn as a number: the resolution at least must stay what it was.
        step.fixed = kind == OPAQUE and target in _VIEWS

    def _kind(self, node: fx.Node, target: str, inputs: list[str]) -> str:
        first = node.args[0] if node.args else None
        before, after = _shape(first), _shape(node)
        if not inputs or self.names.get(first) != inputs[0]:  # type: ignore[arg-type]
            return OPAQUE
        if target in POINTWISE and len(inputs) == 1 and len(after) >= 2:
            return EACH
        if target in POOLS and len(before) == 4 and len(inputs) == 1:
            if target != MEAN:
                return EACH
            over = node.args[1] if isinstance(node.args[1], list | tuple) else ()
            return EACH if {int(each) % 4 for each in over} == {2, 3} else OPAQUE  # type: ignore[arg-type]
        if target == "aten.add.Tensor" and len(inputs) == 2 and not node.kwargs:
            second = node.args[1]
            same = len(after) >= 2 and [str(n) for n in before] == [str(n) for n in _shape(second)]
            return ADDS if same else OPAQUE
        if target in _VIEWS and len(before) >= 2 and len(after) == 2:
            whole = 1
            for size in before[1:]:
                whole *= size
            same = str(before[0]) == str(after[0]) and after[1] == whole
            return FLATTENS if same else OPAQUE
        return OPAQUE

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
        channels = shape[1] if len(shape) >= 2 and isinstance(shape[1], int) else 0
        step = Step(node, kind if channels else OPAQUE, channels)
        self.steps[node.name] = step
        self.names[source] = node.name
        return step


def _target(node: fx.Node) -> str:
    if isinstance(node.target, torch._ops.OpOverload):
        return str(node.target)
    name = getattr(node.target, "__name__", str(node.target))
    return f"operator.{name}" if getattr(operator, name, None) is node.target else str(name)


def _shape(node: Any) -> tuple[Any, ...]:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def _pair(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else [value[0], value[-1]]


def _evaluates(node: fx.Node) -> bool:
    """A dropout that is off; what is no dropout at all."""
    return "dropout" not in str(node.target) or not node.args[2]
