"""Held against the original: the same logits in fp64, and in fp32 no worse than the original's own
rounding, on the given images and on random ones, at two resolutions."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gammabeta import rng
from gammabeta.compact.network import Network
from gammabeta.errors import RunError

EXACT = 1e-10  # largest difference in fp64, over the largest logit
ROUNDING = 1e-5  # the same in fp32, or this many times what the original itself is off:
TIMES = 8.0


@dataclass(frozen=True)
class Check:
    """images: "given" or "random", at (H, W). Differences from the original in fp64, each over the
    largest logit: of the compact network in fp64 and in fp32, and of the original in fp32."""

    images: str
    size: tuple[int, int]
    fp64: float
    fp32: float
    original_fp32: float

    @property
    def good(self) -> bool:
        allowed = max(ROUNDING, TIMES * self.original_fp32)
        return self.fp64 <= EXACT and self.fp32 <= allowed  # false for nan


def verify(
    original: nn.Module, network: Network, images: Tensor, seed: int = 0
) -> tuple[list[Check], list[str]]:
    """The checks, all good, and what could not be checked. network: in fp64.

    images: (N, C, H, W) fp32. Raises RunError where the logits differ.
    """
    draws = rng.generator(seed, "verify")
    height, width = images.shape[2:]
    larger = (height + height // 2, width + width // 2)
    resized = F.interpolate(images, larger, mode="bilinear", align_corners=False)
    pairs = [
        (name, batch)
        for given in (images, resized)
        for name, batch in (
            ("given", given),
            ("random", torch.from_numpy(draws.standard_normal(given.shape, dtype=np.float32))),
        )
    ]
    double = copy.deepcopy(original).double().eval()
    single = copy.deepcopy(network).float()
    checks, notes = [], []
    for name, batch in pairs:
        size = (batch.shape[2], batch.shape[3])
        try:
            with torch.no_grad():
                truth = double(batch.double())
        except Exception:  # made for one resolution
            notes.append(f"the network does not take {size[0]}x{size[1]} images: not checked there")
            break
        try:
            found = [_logits(network, batch.double()), _logits(single, batch)]
        except RuntimeError:
            if size == (height, width):
                raise
            notes.append(f"the compact network takes {height}x{width} images only")
            break
        found.append(_logits(original.eval(), batch))
        check = Check(name, size, *(_difference(truth, logits) for logits in found))
        if not check.good:
            raise RunError(
                f"the compact network computes something else than the original on {name} images "
                f"of {size[0]}x{size[1]} (off by {check.fp64:.1e} in fp64, {check.fp32:.1e} in "
                "fp32): nothing was written; please report this network"
            )
        checks.append(check)
    return checks, notes


@torch.no_grad()
def _logits(function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    return function(images)


def _difference(truth: Tensor, found: Tensor) -> float:
    """max |found - truth| / max |truth|."""
    if truth.shape != found.shape:
        return float("nan")
    most = float(truth.abs().max())
    return float((found.double() - truth).abs().max()) / (most or 1.0)
