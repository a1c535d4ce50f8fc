"""The one step of compaction that changes what a network computes: small gammas become zero."""

from decimal import ROUND_DOWN, Context

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from gammabeta.errors import InputError, in_full


def batch_norms(module: nn.Module) -> dict[str, _BatchNorm]:
    """Name -> BatchNorm with a gamma. Raises InputError where the network has none."""
    found = {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, _BatchNorm) and layer.weight is not None
    }
    if not found:
        raise InputError("this network has no BatchNorm with a gamma: there is nothing to compact")
    return found


def check_number(threshold: float) -> None:
    """Raise InputError for what is no threshold, whatever the network."""
    if isinstance(threshold, bool) or not isinstance(threshold, int | float):
        raise InputError(f"threshold is {threshold!r}: write a number, 0 or more", "threshold")
    if not threshold >= 0:
        raise InputError(f"threshold is {in_full(threshold)}: write 0 or more", "threshold")


def check_threshold(module: nn.Module, threshold: float) -> None:
    """Raise InputError for what is no threshold, and for one that would empty a layer which is not
    empty already."""
    check_number(threshold)
    norms = batch_norms(module)
    largest = {name: float(layer.weight.detach().abs().max()) for name, layer in norms.items()}
    emptied = [name for name, most in largest.items() if 0 < most < threshold]
    if emptied:
        most = min(largest[name] for name in emptied)
        short = float(Context(prec=3, rounding=ROUND_DOWN).create_decimal(most))  # never above it
        raise InputError(
            f"threshold {in_full(threshold)} would switch off all {len(norms[emptied[0]].weight)} "
            f"channels of {emptied[0]}: write {in_full(short)} or less",
            "threshold",
        )


@torch.no_grad()
def snap(module: nn.Module, threshold: float) -> dict[str, list[int]]:
    """Set every gamma with |gamma| < threshold to zero, in place: their channels, by layer.

    Raises InputError, before it changes anything, as `check_threshold` does.
    """
    check_threshold(module, threshold)
    zeros = {}
    for name, layer in batch_norms(module).items():
        small = (layer.weight.abs() < threshold) & (layer.weight != 0)
        layer.weight[small] = 0.0
        zeros[name] = torch.nonzero(small).flatten().tolist()
    return zeros
