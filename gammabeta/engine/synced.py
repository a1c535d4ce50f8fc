"""Stock BatchNorms that see the whole batch of several processes, for the eager engine: the slow
twin of what lean does, on every device. Two sums forward, two backward, all of them by autograd."""

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gammabeta.passes.twin import exact
from gammabeta.processes import Processes


def synchronise(model: nn.Module, processes: Processes) -> None:
    """Let every BatchNorm of `model` take the statistics of a batch over all processes. Modules,
    names and statistics policies stay; only the forward functions of instances change."""
    for layer in model.modules():
        if isinstance(layer, _BatchNorm):
            layer.__dict__["forward"] = functools.partial(_forward, layer, processes)


class _Sum(torch.autograd.Function):
    """The sum over all processes; so is its gradient, since each has what depends on the sum."""

    @staticmethod
    def forward(ctx: Any, processes: Processes, here: Tensor) -> Tensor:
        ctx.processes = processes
        whole = here.clone()
        processes.sum(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        whole = gradient.clone()
        ctx.processes.sum(whole)
        return None, whole


def _forward(layer: _BatchNorm, processes: Processes, x: Tensor) -> Tensor:
    """x: (N, C, ...), this process's share of a batch."""
    of_batch = layer.training or layer.running_mean is None
    if not of_batch or not processes.together:
        out: Tensor = type(layer).forward(layer, x)
        return out
    layer._check_input_dim(x)  # type: ignore[no-untyped-call]
    values = exact(x)
    others = [0, *range(2, x.dim())]
    shape = (1, -1, *[1] * (x.dim() - 2))
    n = torch.tensor(x.numel() // x.shape[1], dtype=torch.float64, device=x.device)
    processes.sum(n)
    n = n.to(values.dtype)
    mean = _Sum.apply(processes, values.sum(others)) / n  # type: ignore[no-untyped-call]
    centred = values - mean.view(shape)
    square = _Sum.apply(processes, centred.square().sum(others))  # type: ignore[no-untyped-call]
    var = square / n
    _follow(layer, mean.detach(), var.detach() * (n / (n - 1)))
    normed: Tensor = centred * torch.rsqrt(var + layer.eps).view(shape)
    if layer.weight is not None:
        normed = normed * exact(layer.weight).view(shape) + exact(layer.bias).view(shape)
    return normed.to(x.dtype)


@torch.no_grad()
def _follow(layer: _BatchNorm, mean: Tensor, var: Tensor) -> None:
    """Running statistics, as stock BatchNorm moves them."""
    if not layer.training or layer.running_mean is None or layer.running_var is None:
        return
    factor = layer.momentum
    if layer.num_batches_tracked is not None:
        layer.num_batches_tracked.add_(1)
        if factor is None:  # a cumulative average
            factor = 1 / float(layer.num_batches_tracked)
    layer.running_mean.lerp_(mean.to(layer.running_mean.dtype), factor or 0.0)
    layer.running_var.lerp_(var.to(layer.running_var.dtype), factor or 0.0)
