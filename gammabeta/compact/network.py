"""A network as plain data: a list of nodes, their tensors, and the little that is needed to run it.

This file imports torch and safetensors and nothing of gammabeta: copied beside a file that holds
what `encode` makes, it is all that is needed to use the network. No pickle. The tensors are those
of the safetensors file; its metadata holds the nodes as JSON:

    network = load("compact.safetensors")      # an ordinary torch.nn.Module, on the CPU, in fp32
    logits = network(images)                   # N 3 H W, normalised as network.about says
"""

import json
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

FORMAT = 2  # 1 had no conditions: such a file is read, and takes every size
_KEY = "gammabeta.network"
_OPERATORS: dict[str, Callable[..., Any]] = {
    name: getattr(operator, name)
    for name in ("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "getitem")
} | {"sym_max": max, "sym_min": min, "ceil": math.ceil, "floor": math.floor, "trunc": math.trunc}
# These are of sizes, which are numbers here. What conditions on sizes are made of:
_OF_ALL: dict[str, Callable[..., Any]] = {
    "+": sum, "*": math.prod, "and": all, "or": any, "max": max, "min": min,
}  # fmt: skip
_OF_EACH: dict[str, Callable[..., Any]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt,
    ">=": operator.ge, "//": operator.floordiv, "%": operator.mod, "/": operator.truediv,
    "ceil": math.ceil, "floor": math.floor, "trunc": math.trunc, "not": operator.not_,
}  # fmt: skip
_CALLED = ("max", "min", "ceil", "floor", "trunc", "not")  # the others stand between
_COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
_SIZES = {2: "NF", 3: "NCL", 4: "NCHW", 5: "NCDHW"}
_CONVOLUTIONS = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}  # by the dimensions of the weight
_FORBIDDEN = {"from_file"}  # an operation of torch that opens any file it is told to


@dataclass
class Node:
    """One step. op: input, conv, linear, affine (x scale + shift, a channel each), flatten, or call
    (an operation of torch by name). inputs: the names of the nodes whose results it takes."""

    name: str
    op: str
    inputs: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)


class Network(nn.Module):
    """Runs nodes in order. nodes[0] is the input (mostly N C H W); the result is that of `output`.

    about: JSON values that travel with it, such as how to normalise images. conditions: what the
    sizes of its input must fulfil, each ["==", ["%", ["size", 3], 2], 0] or the like: at all other
    sizes the network it was made from may compute something else than its nodes.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        output: str,
        about: Mapping[str, Any] | None = None,
        conditions: Sequence[Any] = (),
    ) -> None:
        super().__init__()
        self.nodes = [Node(each.name, each.op, each.inputs, each.settings) for each in nodes]
        self.output = output
        self.about = dict(about or {})
        self.conditions = list(conditions)
        self._names: list[dict[str, str]] = []  # of each node: tensor -> buffer
        for index, node in enumerate(nodes):
            names = {}
            for key, value in node.tensors.items():
                name = re.sub(r"\W", "_", f"{node.name}.{key}")
                names[key] = f"{name}_{index}" if hasattr(self, name) else name
                self.register_buffer(names[key], value)
            self._names.append(names)
        last = {name: index for index, node in enumerate(nodes) for name in node.inputs}
        self._done = [[] for _ in nodes]  # type: list[list[str]]
        for name, index in last.items():
            if name != output:
                self._done[index].append(name)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> logits (N, classes). Raises ValueError for sizes it was not made for."""
        why = self.refusal(images.shape)
        if why:
            sizes = " x ".join(str(size) for size in images.shape)
            letters = " ".join(_SIZES.get(images.dim(), ""))
            raise ValueError(
                f"this network takes no images of {sizes}: it was made for {letters} with {why}"
            )
        values: dict[str, Any] = {}
        for node, names, done in zip(self.nodes, self._names, self._done, strict=True):
            if node.op == "input":
                values[node.name] = images
            else:
                inputs = [values[name] for name in node.inputs]
                tensors = {key: getattr(self, name) for key, name in names.items()}
                values[node.name] = compute(node, inputs, tensors)
            for name in done:
                del values[name]
        logits: Tensor = values[self.output]
        return logits

    def refusal(self, shape: Sequence[int]) -> str:
        """The condition that images of a shape (N, C, H, W) do not fulfil, or nothing."""
        for condition in self.conditions:
            if not fits(condition, shape):
                return shown(condition, len(shape))
        return ""

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor, named NODE.KEY."""
        return {
            f"{node.name}.{key}": getattr(self, name)
            for node, names in zip(self.nodes, self._names, strict=True)
            for key, name in names.items()
        }


def compute(node: Node, inputs: Sequence[Any], tensors: Mapping[str, Tensor]) -> Any:
    """What one node makes of its inputs."""
    if node.op == "call":
        function = find_operation(node.settings["target"])
        arguments = _decode(node.settings["args"], inputs, tensors)
        named = node.settings["kwargs"].items()  # one of them may be called dtype
        return function(*arguments, **{key: _decode(each, inputs, tensors) for key, each in named})
    (x,) = inputs
    if node.op == "conv":
        weight = tensors["weight"]
        return _CONVOLUTIONS[weight.dim()](x, weight, tensors.get("bias"), **node.settings)
    if node.op == "linear":
        return F.linear(x, tensors["weight"], tensors.get("bias"))
    if node.op == "affine":
        shape = (1, -1, *[1] * (x.dim() - 2))
        return x * tensors["scale"].view(shape) + tensors["shift"].view(shape)
    if node.op == "flatten":
        return torch.flatten(x, 1)
    raise ValueError(f"node {node.name} is a '{node.op}', which this version does not know")


def fits(condition: Any, shape: Sequence[int]) -> bool:
    """Whether a shape (N, C, H, W) fulfils a condition."""
    try:
        return bool(_value(condition, shape))
    except (IndexError, ZeroDivisionError):
        return False


def _value(expression: Any, shape: Sequence[int]) -> Any:
    if isinstance(expression, int | float):
        return expression
    name, *parts = expression
    if name == "size":
        return shape[parts[0]]
    values = [_value(each, shape) for each in parts]
    return _OF_ALL[name](values) if name in _OF_ALL else _OF_EACH[name](*values)


def shown(expression: Any, dimensions: int) -> str:
    """A condition for people: W % 2 == 0."""
    if isinstance(expression, int | float):
        return str(expression)
    name, *parts = expression
    if name == "size":
        return _SIZES.get(dimensions, "")[parts[0] :][:1] or f"size {parts[0]}"
    texts = [shown(each, dimensions) for each in parts]
    if name in _CALLED:
        return f"{name}({', '.join(texts)})"
    for place, each in enumerate(parts):
        inside = isinstance(each, list) and each[0] not in ("size", *_CALLED)
        if inside and not (name in _COMPARISONS and each[0] not in _COMPARISONS):
            texts[place] = f"({texts[place]})"
    return f" {name} ".join(texts)


def _check(expression: Any) -> None:
    """Raise ValueError for what is no condition."""
    if isinstance(expression, int | float):
        return
    if isinstance(expression, list) and expression and isinstance(expression[0], str):
        name, *parts = expression
        if name == "size" and len(parts) == 1 and type(parts[0]) is int and parts[0] >= 0:
            return
        if name in _OF_ALL or name in _OF_EACH:
            for each in parts:
                _check(each)
            return
    raise ValueError(f"the condition {expression!r} is none that this version knows")


def find_operation(target: str) -> Callable[..., Any]:
    """Raises ValueError for what is neither an operation of torch nor arithmetic."""
    space, _, name = target.partition(".")
    if space == "operator" and name in _OPERATORS:
        return _OPERATORS[name]
    packet, _, overload = name.partition(".")
    if space == "aten" and packet not in _FORBIDDEN:
        found = getattr(getattr(torch.ops.aten, packet, None), overload, None)
        if isinstance(found, torch._ops.OpOverload):
            return found
    raise ValueError(f"the operation '{target}' is none that this version runs")


def _decode(value: Any, inputs: Sequence[Any], tensors: Mapping[str, Tensor]) -> Any:
    """{"input": 0}, {"tensor": KEY} and {"dtype": NAME} stand for what JSON cannot say."""
    if isinstance(value, list):
        return [_decode(each, inputs, tensors) for each in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"input"}:
        return inputs[value["input"]]
    if value.keys() == {"tensor"}:
        return tensors[value["tensor"]]
    if value.keys() == {"dtype"}:
        return getattr(torch, value["dtype"])
    return {key: _decode(each, inputs, tensors) for key, each in value.items()}


def encode(network: Network) -> bytes:
    """The file: floating tensors in fp32, the nodes as JSON in its metadata."""
    nodes = [
        {"name": node.name, "op": node.op, "inputs": list(node.inputs)}
        | {"settings": node.settings, "tensors": sorted(names)}
        for node, names in zip(network.nodes, network._names, strict=True)
    ]
    description = {"format": FORMAT, "nodes": nodes, "output": network.output}
    description["conditions"] = network.conditions
    text = json.dumps(description | {"about": network.about}, sort_keys=True)
    tensors = {
        name: (value.float() if value.is_floating_point() else value).cpu().contiguous().clone()
        for name, value in network.tensors().items()
    }
    return to_bytes(tensors, {_KEY: text})


def load(path: str | Path) -> Network:
    """The network in a file. Raises ValueError for a file that holds none."""
    try:
        with safe_open(str(path), framework="pt") as file:
            text = (file.metadata() or {}).get(_KEY)
            if text is None:
                raise ValueError("it has no description of a network")
            description = json.loads(text)
            if description["format"] not in (1, FORMAT):
                raise ValueError(
                    f"it has format {description['format']}, and this version reads 1 to {FORMAT}"
                )
            conditions = description.get("conditions", [])
            nodes = [
                Node(
                    each["name"], each["op"], tuple(each["inputs"]), each["settings"],
                    {key: file.get_tensor(f"{each['name']}.{key}") for key in each["tensors"]},
                )
                for each in description["nodes"]
            ]  # fmt: skip
            for condition in conditions:
                _check(condition)
        return Network(nodes, description["output"], description["about"], conditions).eval()
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist") from None
    except Exception as error:  # safetensors has errors of its own
        line = " ".join(str(error).split())
        raise ValueError(f"{path} is no network of gammabeta compact: {line}") from None
