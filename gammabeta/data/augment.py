"""The order of an epoch, its crops, flips and brightness, and normalisation.

What is drawn is a function of (seed, epoch) alone and belongs to the image, not to its place in
the order: batch size, engine, device and resuming change nothing. Applying it is plain tensor
arithmetic on whatever device the images are on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from gammabeta import rng


@dataclass(frozen=True, eq=False)
class EpochPlan:
    """order: int64 (N,), the images in training order. shift: int64 (N, 2), (dy, dx) of image i's
    crop, in [0, 2 * padding]. flip: bool (N,), whether image i is mirrored. brightness: float32
    (N,), what is added to the pixels of image i, in [0, 1]; None without random brightness. epoch:
    from 0; the crops of images whose size is not known beforehand are drawn from it (crops.py)."""

    order: np.ndarray
    shift: np.ndarray
    flip: np.ndarray
    brightness: np.ndarray | None = None
    epoch: int = 0


def epoch_plan(
    seed: int, epoch: int, count: int, *, crop_padding: int, flip: bool, brightness: float = 0.0
) -> EpochPlan:
    """The plan of one epoch over `count` images. brightness: at most this, from -b to b.

    Order, crops, flips and brightness have a stream each, so switching one off leaves the others as
    they were.
    """
    order = rng.generator(seed, "order", epoch).permutation(count)
    crops = rng.generator(seed, "crop", epoch)
    shift = crops.integers(0, 2 * crop_padding + 1, size=(count, 2))
    flips = rng.generator(seed, "flip", epoch).integers(0, 2, size=count).astype(bool)
    added = None
    if brightness:
        draws = rng.generator(seed, "brightness", epoch).random(count)
        added = (brightness * (2 * draws - 1)).astype(np.float32)
    return EpochPlan(order, shift, flips if flip else np.zeros(count, dtype=bool), added, epoch)


def augment(
    images: torch.Tensor, shift: torch.Tensor, flip: torch.Tensor, padding: int
) -> torch.Tensor:
    """Pad with black, crop at `shift`, then mirror where `flip`.

    images: uint8 (B, H, W, C). shift: int64 (B, 2), (dy, dx) in [0, 2 * padding]; padding is the
    middle, which leaves the image in its place. flip: bool (B,). Returns uint8 (B, H, W, C).
    """
    batch, height, width, channels = images.shape
    wide = width + 2 * padding
    padded = images.new_zeros(batch, height + 2 * padding, wide, channels)
    padded[:, padding : padding + height, padding : padding + width] = images
    across = torch.arange(width, device=images.device)
    across = torch.where(flip[:, None], width - 1 - across, across) + shift[:, 1:]  # B W
    down = torch.arange(height, device=images.device) + shift[:, :1]  # B H
    down = down + torch.arange(batch, device=images.device)[:, None] * (height + 2 * padding)
    index = down[:, :, None] * wide + across[:, None, :]  # B H W, into all pixels of the batch
    pixels = padded.view(-1, channels).index_select(0, index.view(-1))  # faster than [index]
    return pixels.view(batch, height, width, channels)


def normalise(
    images: torch.Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    brightness: torch.Tensor | None = None,
) -> torch.Tensor:
    """(x / 255 - mean) / std: uint8 (B, H, W, C) -> float32 (B, C, H, W), channels_last memory.

    brightness: float32 (B,), first added to x / 255, which is then clipped to [0, 1].
    """
    batch, height, width, channels = images.shape
    # One row of pixels at a time: a loop over three channels innermost would be several times
    # slower on a CPU.
    center, spread = _row(tuple(mean), tuple(std), width, images.device)
    rows = images.reshape(batch * height, width * channels).to(torch.float32, copy=True)
    rows = rows.div_(255)
    if brightness is not None:
        rows.view(batch, -1).add_(brightness[:, None]).clamp_(0, 1)
    rows = rows.sub_(center).div_(spread)
    return rows.view(batch, height, width, channels).permute(0, 3, 1, 2)


@cache  # a copy to a GPU at every step would make the CPU wait for it; and a CUDA graph reads it
def _row(
    mean: tuple[float, ...], std: tuple[float, ...], width: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of every value in one row of pixels, each (W * C,)."""
    center, spread = torch.tensor(mean, device=device), torch.tensor(std, device=device)
    return center.repeat(width), spread.repeat(width)
