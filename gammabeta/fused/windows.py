# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""Device functions of the Triton kernels: which pixels a convolution meets. See
kernels.py."""

import triton
import triton.language as tl

NOTHING, IDENTITY, CONVOLUTION = (tl.constexpr(kind) for kind in range(3))  # what a skip is


@triton.constexpr_function
def _steps(phase, stride, pack):
    """(place among the weights, rows down, columns right) of each step. A pixel of an input
    gradient at stride 2 meets, by its phase (row and column even or odd), some taps only."""
    if pack > 1:
        return [(step, step - 1, -1) for step in range(3)]
    down, right = phase // stride - 1, phase % stride - 1
    return [
        (3 * y + x, (down + y) // stride, (right + x) // stride)
        for y in range(3)
        for x in range(3)
        if (down + y) % stride == 0 and (right + x) % stride == 0
    ]


@triton.constexpr_function
def count_steps(phase, stride, pack):
    return len(_steps(phase, stride, pack))


@triton.constexpr_function
def place_of(phase, step, stride, pack):
    return _steps(phase, stride, pack)[step][0]


@triton.constexpr_function
def down(phase, step, stride, pack):
    return _steps(phase, stride, pack)[step][1]


@triton.constexpr_function
def right(phase, step, stride, pack):
    return _steps(phase, stride, pack)[step][2]


@triton.constexpr_function
def owns(step, stride, pack):
    """Whether this step meets input pixels that no other row of the output has at such a step."""
    _, down, right = _steps(0, 1, pack)[step]
    return down == 0 if pack > 1 else 0 <= down < stride and 0 <= right < stride


@triton.jit
def pixels(image, y, x, ahead, valid, SIZE: tl.constexpr):
    """Pixel numbers, and which of them are no padding, at y and x + ahead: (BLOCK_M, 1 or K)."""
    x = x[:, None] + ahead
    inside = (valid & (y >= 0) & (y < SIZE))[:, None] & (x >= 0) & (x < SIZE)
    return ((image * SIZE + y) * SIZE)[:, None] + x, inside


@triton.jit
def columns(split, PACK: tl.constexpr, BLOCK_N: tl.constexpr, CHANNELS: tl.constexpr):
    """Of the output's columns: their channels, and where in a row of memory they lie."""
    column = tl.arange(0, PACK * BLOCK_N)
    if PACK == 1 or CHANNELS == BLOCK_N:  # said so that the compiler sees what is contiguous
        place = split * BLOCK_N + column
    else:
        place = column // BLOCK_N * CHANNELS + column % BLOCK_N
    return split * BLOCK_N + column % BLOCK_N, place


@triton.jit
def own(ahead, PACK: tl.constexpr):
    """Which pixels of a window are those that the row is for."""
    return (ahead >= 1) & (ahead <= PACK) if PACK > 1 else ahead == 0


@triton.jit
def load_step(
    one, other, weight, pixel, inside, channel, line, column,
    TWO: tl.constexpr, CHANNELS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """A step's inputs, from one tensor or two, and its weights."""
    mask = inside & (channel < CHANNELS)[None, :]
    at = pixel * CHANNELS + channel[None, :]
    first = tl.load(one + at, mask=mask, other=0.0)
    second = first
    if TWO:
        second = tl.load(other + at, mask=mask, other=0.0)
    return first, second, tl.load(weight + line[:, None] * COLUMNS + column[None, :])
