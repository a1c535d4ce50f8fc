"""The gammas of a network, and the share of them that training has switched off."""

import torch
from torch import Tensor, nn

from gammabeta.roles import is_norm

SMALL = 0.01  # |gamma| below this is called a switched-off feature (paper, section 5)


def gammas(module: nn.Module) -> dict[str, Tensor]:
    """Parameter name -> gamma (C,), for every normalisation layer that has one."""
    return {
        f"{name}.weight" if name else "weight": gamma.detach()
        for name, layer in module.named_modules()
        if is_norm(layer) and (gamma := layer._parameters.get("weight")) is not None
    }


def small_share(values: Tensor, threshold: float = SMALL) -> float:
    """Share of the gammas with |gamma| < threshold, in 0..1; 0 where there are none."""
    return float((values.abs() < threshold).double().mean()) if values.numel() else 0.0


def small_gammas(module: nn.Module) -> float:
    """`small_share` over all gammas of a network together."""
    found = list(gammas(module).values())
    return small_share(torch.cat([value.flatten().cpu() for value in found])) if found else 0.0
