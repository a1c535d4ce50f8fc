"""The passes on an NVIDIA GPU, by the Triton kernels of kernels.py. Import it only where triton is.

No pass waits for the GPU, and its launches depend on shapes alone: after one run of a shape, which
compiles its kernels, it can be captured in a CUDA graph.
"""

from typing import Any

import torch
from torch import Tensor

from gammabeta.passes import kernels, twin
from gammabeta.passes.plain import plain

TYPES = (torch.float32, torch.bfloat16, torch.float16)
DEVICE = "cuda"
_TILE = 4096  # values
_WIDEST = 128  # columns of a tile
_LINES = 32  # partials that are merged at once
_PROGRAMS = 512  # that add up, about: a few for each of an H100's 132 processors


def supports(*tensors: Tensor | None, channel: tuple[Tensor | None, ...] = ()) -> bool:
    """Whether these can go through the kernels; as for the compiled passes (native.py)."""
    return plain(tensors, channel, DEVICE, TYPES, multiple=8)


def measure(z: Tensor) -> tuple[Tensor, Tensor]:
    """See twin.py, also for all below."""
    if not supports(z):
        return twin.measure(z)
    rows, channels, programs, span, tile = _share_out(z)
    partial = z.new_empty(2, programs, channels, dtype=torch.float32)
    moments = z.new_empty(2, channels, dtype=torch.float32)
    blocks = _cut(channels, tile["BLOCK_C"])
    _launch(
        kernels.measure, (programs, blocks),
        z=z, partial=partial, rows=rows, channels=channels, span=span, **tile,
    )  # fmt: skip
    _launch(
        kernels.merge_moments, (blocks,),
        z=z, partial=partial, moments=moments, programs=programs, rows=rows, channels=channels,
        span=span, LINES=_LINES, BLOCK_C=tile["BLOCK_C"],
    )  # fmt: skip
    return moments[0], moments[1]


def normalise(
    z: Tensor,
    s: Tensor,
    t: Tensor,
    skip: Tensor | None = None,
    s2: Tensor | None = None,
    t2: Tensor | None = None,
    *,
    relu: bool,
    keep: bool,
) -> tuple[Tensor, Tensor | None]:
    if not supports(z, skip, channel=(s, t, s2, t2)):
        return twin.normalise(z, s, t, skip, s2, t2, relu=relu, keep=keep)
    out = torch.empty_like(z)
    bits = z.new_empty(z.numel() // 8, dtype=torch.uint8) if keep else None
    rows, channels, tile = _tiles(z)
    _launch(
        kernels.normalise, (_cut(rows, tile["BLOCK_M"]), _cut(channels, tile["BLOCK_C"])),
        z=z, s=s, t=t, skip=skip, s2=s2, t2=t2, out=out, bits=bits, rows=rows, channels=channels,
        SKIP=skip is not None, SHORTCUT=s2 is not None, RELU=relu, KEEP=keep, **tile,
    )  # fmt: skip
    return out, bits


def sums(
    g: Tensor,
    z: Tensor,
    mean: Tensor,
    inv: Tensor,
    *,
    opened: tuple[Tensor, Tensor] | Tensor | None = None,
    more: Tensor | None = None,
    shortcut: tuple[Tensor, Tensor, Tensor] | None = None,
    keep: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    s, t = opened if isinstance(opened, tuple) else (None, None)
    z2, mean2, inv2 = shortcut or (None, None, None)
    if not supports(z, g, more, z2, channel=(mean, inv, s, t, mean2, inv2)):
        return twin.sums(g, z, mean, inv, opened=opened, more=more, shortcut=shortcut, keep=keep)
    rows, channels, programs, span, tile = _share_out(z)
    parts = 2 if shortcut is None else 3
    partial = z.new_empty(parts, programs, channels, dtype=torch.float32)
    totals = z.new_empty(parts, channels, dtype=torch.float32)
    u = torch.empty_like(z) if keep else None
    bits = opened if isinstance(opened, Tensor) else None
    where = kernels.NOWHERE if opened is None else kernels.AFFINE if bits is None else kernels.BITS
    blocks = _cut(channels, tile["BLOCK_C"])
    _launch(
        kernels.sums, (programs, blocks),
        g=g, more=more, z=z, mean=mean, inv=inv, s=s, t=t, bits=bits, z2=z2, mean2=mean2,
        inv2=inv2, u=u, partial=partial, rows=rows, channels=channels, span=span,
        MORE=more is not None, OPENED=where.value, SHORTCUT=shortcut is not None, KEEP=keep,
        **tile,
    )  # fmt: skip
    _launch(
        kernels.merge_sums, (blocks, parts),
        partial=partial, totals=totals, programs=programs, channels=channels, LINES=_LINES,
        BLOCK_C=tile["BLOCK_C"],
    )  # fmt: skip
    return totals[0], totals[1], None if shortcut is None else totals[2], u


def input_gradient(
    g: Tensor,
    z: Tensor,
    mean: Tensor,
    inv: Tensor,
    s: Tensor,
    k1: Tensor,
    k2: Tensor,
    t: Tensor | None = None,
) -> Tensor:
    if not supports(z, g, channel=(mean, inv, s, t, k1, k2)):
        return twin.input_gradient(g, z, mean, inv, s, k1, k2, t)
    dz = torch.empty_like(z)
    rows, channels, tile = _tiles(z)
    _launch(
        kernels.input_gradient, (_cut(rows, tile["BLOCK_M"]), _cut(channels, tile["BLOCK_C"])),
        g=g, z=z, mean=mean, inv=inv, s=s, k1=k1, k2=k2, t=t, dz=dz, rows=rows, channels=channels,
        MASKED=t is not None, **tile,
    )  # fmt: skip
    return dz


def _tiles(z: Tensor) -> tuple[int, int, dict[str, int]]:
    """Rows, channels, and the shape of a tile."""
    channels = z.shape[-1]
    wide = min(_WIDEST, 1 << (channels - 1).bit_length())
    return z.numel() // channels, channels, {"BLOCK_M": _TILE // wide, "BLOCK_C": wide}


def _share_out(z: Tensor) -> tuple[int, int, int, int, dict[str, int]]:
    """Rows, channels, how many programs add up a column, and the rows of each of them."""
    rows, channels, tile = _tiles(z)
    most = max(_PROGRAMS // _cut(channels, tile["BLOCK_C"]), 1)
    span = _cut(_cut(rows, most), tile["BLOCK_M"]) * tile["BLOCK_M"]
    return rows, channels, _cut(rows, span), span, tile


def _cut(size: int, step: int) -> int:
    return -(-size // step)


def _launch(kernel: Any, grid: tuple[int, ...], **arguments: Any) -> None:
    kernel[grid](num_warps=4, **arguments)
