"""Which channels are constant: the same number at every place of every image, at any resolution.

A convolution with zero padding sees zeros beyond the border where a constant channel has c, so what
it makes of c is another number there: only c = 0 stays constant through it.
"""

import torch
from torch import Tensor

from gammabeta.compact.graph import (
    ADDS,
    AVERAGE_POOLS,
    EACH,
    FLATTENS,
    JOINS,
    MIXES,
    POOLS,
    Graph,
    Step,
)
from gammabeta.compact.network import compute


def constants(graph: Graph) -> dict[str, Tensor]:
    """For each step a value a channel (C,) in fp64: the constant, or nan where it varies."""
    values: dict[str, Tensor] = {}
    for name, step in graph.steps.items():
        inputs = [values[each] for each in step.node.inputs]
        values[name] = _value(step, inputs)
    return values


def pads(step: Step) -> bool:
    """Whether a layer sees zeros beyond the border."""
    return step.node.op == "conv" and any(step.node.settings["padding"])


def _value(step: Step, inputs: list[Tensor]) -> Tensor:
    if step.kind == MIXES:
        return _mixed(step, inputs[0])
    if step.kind == ADDS:
        return inputs[0] + inputs[1]
    if step.kind == FLATTENS:
        return inputs[0].repeat_interleave(step.channels // len(inputs[0]))
    if step.kind == JOINS:
        return torch.cat(inputs)
    if step.kind == EACH:
        return _each(step, inputs[0])
    return torch.full((step.channels,), torch.nan, dtype=torch.float64)


def _mixed(step: Step, value: Tensor) -> Tensor:
    weight = step.node.tensors["weight"]
    groups = step.node.settings.get("groups", 1)
    bias = step.node.tensors.get("bias", weight.new_zeros(len(weight)))
    varies = value.isnan()
    if pads(step):
        varies = varies | (value != 0)
    # Each row reads the inputs of its own group: (groups, O / groups, I / groups)
    by_group = (groups, len(weight) // groups, weight.shape[1])
    reads = (weight != 0).flatten(2).any(2) if weight.dim() > 2 else weight != 0
    sums = weight.flatten(2).sum(2) if weight.dim() > 2 else weight
    moving = (reads.view(by_group) & varies.view(groups, 1, -1)).any(2).flatten()
    held = value.where(~varies, 0.0).view(groups, 1, -1)
    total = bias + (sums.view(by_group) * held).sum(2).flatten()
    return total.where(~moving, torch.nan)


def _each(step: Step, value: Tensor) -> Tensor:
    node = step.node
    if node.op == "affine":
        scale, shift = node.tensors["scale"], node.tensors["shift"]
        return torch.where(scale == 0, shift, value * scale + shift)
    target = node.settings["target"]
    if target not in POOLS:
        found = torch.as_tensor(compute(node, [value[None]], node.tensors))[0]
        return found.where(~value.isnan() & found.isfinite(), torch.nan)
    if target in AVERAGE_POOLS and not _is_plain_average(node.settings):
        return value.where(value == 0, torch.nan)
    return value


def _is_plain_average(settings: dict[str, object]) -> bool:
    """Whether the mean of a constant is that constant, at the border too."""
    names = ("input", "kernel", "stride", "padding", "ceil_mode", "count_include_pad", "divisor")
    args, kwargs = settings["args"], settings["kwargs"]
    assert isinstance(args, list)
    assert isinstance(kwargs, dict)
    given = dict(zip(names, args, strict=False))
    padding = given.get("padding", 0)
    padded = any(padding) if isinstance(padding, list) else bool(padding)
    return not (padded or kwargs or given.get("divisor") or given.get("ceil_mode"))
