"""How the Triton kernels cut their work: the one place to tune, and the padding all of it needs."""

from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Tile:
    """How a convolution is cut: `rows` pixels at a time, `span` pixels and `warps` a program; at
    stride 1, `pack` neighbours in a row of the matrix (kernels.py)."""

    rows: int
    span: int
    warps: int
    pack: int


# By a layer's padded channels; wider ones as the last. In a ResNet-14 at batch 128 that is 256, 128
# and 128 programs, for the 132 multiprocessors of an H100, and in bf16 none spills registers. How
# fast they are is not measured.
TILES = {16: Tile(128, 512, 8, 2), 32: Tile(64, 256, 8, 2), 64: Tile(64, 64, 8, 1)}
MOST = 256  # programs a layer, by longer spans: the next layer's each merge the partials of all
WIDEST = 64  # channels a program holds at once
# Up to this many channels the kernel that needs a total merges the partials itself, in each of its
# programs; beyond, and with 0 always, a small kernel of its own does.
MERGES = 64
MERGED = 4096  # numbers a program holds at once while it merges partials
PRECISION = "tf32x3"  # of products in fp32: three on tensor cores, nearly as exact as "ieee"


def fit(tile: Tile, rows: int) -> Tile:
    """A tile for so many pixels."""
    return replace(tile, span=max(tile.span, cut(cut(rows, MOST), tile.rows) * tile.rows))


def padded(channels: int) -> int:
    """To a power of two that tl.dot takes."""
    return max(16, power_of_two(channels))


def lines(programs: int, block: int) -> int:
    """How many programs' partials to merge at once, of `block` channels."""
    return min(power_of_two(programs), MERGED // block)


def lay_out(weight: Tensor, back: bool, pack: int) -> Tensor:
    """(S, O, I, k, k) -> (S, steps, input columns, output columns), zero where padded. Steps are
    the k k taps; with pack, rows of taps, their columns those of the window of pack + 2 pixels and
    of the pack pixels that are made of it. back: for the input gradient, which is a convolution
    with the filter rotated and O and I swapped."""
    taps = weight.flip(3, 4).permute(0, 3, 4, 1, 2) if back else weight.permute(0, 3, 4, 2, 1)
    sets, high, wide, inputs, outputs = taps.shape
    taps = F.pad(taps, (0, padded(outputs) - outputs, 0, padded(inputs) - inputs))
    if pack == 1:
        return taps.flatten(1, 2).contiguous()
    inputs, outputs = taps.shape[3:]
    band = taps.new_zeros(sets, high, pack + 2, inputs, pack, outputs)
    for pixel in range(pack):
        band[:, :, pixel : pixel + wide, :, pixel] = taps
    return band.view(sets, high, (pack + 2) * inputs, pack * outputs)


def power_of_two(number: int) -> int:
    """The next one, or the number itself."""
    return 1 << (number - 1).bit_length()


def cut(number: int, size: int) -> int:
    """How many pieces of a size hold a number."""
    return -(-number // size)
