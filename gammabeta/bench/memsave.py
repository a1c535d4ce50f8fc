"""The technique of memsave_torch (Bhatia and Dangel 2024, arXiv 2404.12406), as a baseline: a
frozen convolution keeps no input, BatchNorm keeps its own, ReLU keeps a byte a value.

Written anew, and applied to functional ReLUs too, which their package leaves as they are.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.autograd.function import once_differentiable


class Convolution(torch.autograd.Function):
    """Keeps its weight. torch's backward wants an input, if only for its shape: zeros of it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *options: Any) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.shape, ctx.options = x.shape, options
        return F.conv2d(x, weight, bias, *options)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.options
        x = torch.zeros(ctx.shape, dtype=weight.dtype, device=weight.device)
        if gradient.is_contiguous(memory_format=torch.channels_last):
            x = x.contiguous(memory_format=torch.channels_last)
        dx, _, _ = torch.ops.aten.convolution_backward(
            gradient.to(weight.dtype), x, weight, None, stride, padding, dilation,
            False, [0, 0], groups, [True, False, False],
        )  # fmt: skip
        return (dx, *[None] * 6)


class ReLU(torch.autograd.Function):
    """Keeps where it was open."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out = F.relu(x)
        ctx.save_for_backward(out > 0)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (mask,) = ctx.saved_tensors
        dx: Tensor = gradient * mask
        return dx


def relu(x: Tensor) -> Tensor:
    """What fx puts in the place of F.relu: it wants a function with a name."""
    return ReLU.apply(x)  # type: ignore[no-any-return, no-untyped-call]


class FrozenConv2d(nn.Module):
    """A frozen nn.Conv2d by `Convolution`."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        conv, kind = self.conv, x.device.type
        if not x.requires_grad:  # the first layer: there is nothing to keep
            out: Tensor = conv(x)
            return out
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        weight = conv.weight.detach().to(dtype)
        bias = None if conv.bias is None else conv.bias.detach().to(dtype)
        options = (conv.stride, conv.padding, conv.dilation, conv.groups)
        return Convolution.apply(x.to(dtype), weight, bias, *options)  # type: ignore[no-any-return, no-untyped-call]


def memsave(model: nn.Module) -> nn.Module:
    """A network of this package with the technique applied; it shares the parameters of `model`."""
    graph = fx.symbolic_trace(model)
    modules = dict(graph.named_modules())
    for node in graph.graph.nodes:
        layer = modules.get(node.target) if node.op == "call_module" else None
        if isinstance(layer, nn.Conv2d) and not any(p.requires_grad for p in layer.parameters()):
            name = f"memsave_{node.name}"
            graph.add_submodule(name, FrozenConv2d(layer))
            node.target = name
        elif node.op == "call_function" and node.target is F.relu:
            node.target, node.kwargs = relu, {}
    graph.recompile()
    return graph
