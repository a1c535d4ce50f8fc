"""A network as plain data: a list of nodes, their tensors, and the little that is needed to run it.

This file imports torch and safetensors and nothing of gammabeta: copied beside a file that `save`
wrote, it is all that is needed to use the network. No pickle. The tensors are those of the
safetensors file; its metadata holds the nodes as JSON:

    network = load("compact.safetensors")      # an ordinary torch.nn.Module, on the CPU, in fp32
    logits = network(images)                   # N 3 H W, normalised as network.about says
"""

import json
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

FORMAT = 1
_KEY = "gammabeta.network"
_OPERATORS: dict[str, Callable[..., Any]] = {
    name: getattr(operator, name)
    for name in ("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "getitem")
} | {"sym_max": max, "sym_min": min}  # of sizes, which are numbers here
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

    about: JSON values that travel with it, such as how to normalise images.
    """

    def __init__(
        self, nodes: Sequence[Node], output: str, about: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.nodes = [Node(each.name, each.op, each.inputs, each.settings) for each in nodes]
        self.output = output
        self.about = dict(about or {})
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
        """(N, C, H, W) -> logits (N, classes)."""
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
        return function(*arguments, **_decode(node.settings["kwargs"], inputs, tensors))
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
            if description["format"] != FORMAT:
                raise ValueError(f"it has format {description['format']}, not {FORMAT}")
            nodes = [
                Node(
                    each["name"], each["op"], tuple(each["inputs"]), each["settings"],
                    {key: file.get_tensor(f"{each['name']}.{key}") for key in each["tensors"]},
                )
                for each in description["nodes"]
            ]  # fmt: skip
        return Network(nodes, description["output"], description["about"]).eval()
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist") from None
    except Exception as error:  # safetensors has errors of its own
        line = " ".join(str(error).split())
        raise ValueError(f"{path} is no network of gammabeta compact: {line}") from None
