"""The gammas of a network, and the share of them that training has switched off."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from gammabeta.errors import InputError
from gammabeta.roles import is_norm
from gammabeta.small import SMALL

Array = np.ndarray[Any, np.dtype[Any]]


def gammas(module: nn.Module) -> dict[str, Tensor]:
    """Parameter name -> gamma (C,), for every normalisation layer that has one."""
    return {
        f"{name}.weight" if name else "weight": gamma.detach()
        for name, layer in module.named_modules()
        if is_norm(layer) and (gamma := layer._parameters.get("weight")) is not None
    }


def small_share(values: Mapping[str, Array] | Array, threshold: float = SMALL) -> float:
    """The share of gammas with |gamma| < threshold, strictly, all layers counted together.

    The comparison is made in the precision of the values, so a float32 gamma of 0.01 is not small.
    """
    pooled = pool(values)
    if not pooled.size:
        raise InputError("no gammas to count: give those of a network with normalisation layers")
    return float(np.mean(np.abs(pooled) < threshold))


def pool(values: Mapping[str, Array] | Array) -> Array:
    """The gammas of all layers in one row."""
    if not isinstance(values, Mapping):
        return np.ravel(values)
    return np.concatenate([np.ravel(layer) for layer in values.values()] or [np.zeros(0)])


def small_gammas(module: nn.Module) -> float | None:
    """`small_share` over all gammas of a network, trained or not; None where it has none."""
    found = {name: gamma.float().cpu().numpy() for name, gamma in gammas(module).items()}
    return small_share(found) if found else None
