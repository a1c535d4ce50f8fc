"""The passes in C++ (passes.cpp). Where there is no compiler, and for what these do not take, they
are those of twin.py: right, and slower."""

import ctypes
import platform
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from gammabeta.passes import compiled, twin
from gammabeta.passes.compiled import Unavailable
from gammabeta.passes.plain import plain

_SOURCE = Path(__file__).with_name("passes.cpp")


def loaded() -> ctypes.CDLL | Unavailable:
    """The compiled passes, or the reason why there are none."""
    return compiled.loaded(_SOURCE)


def why_slow() -> str | None:
    """Why the compiled passes cannot be used on this machine's CPU, or None."""
    return compiled.why_not(_SOURCE)


def will_compile() -> bool:
    """Whether the passes still have to be compiled here, which takes a while and happens once."""
    return compiled.will_compile(_SOURCE)


def supports(*tensors: Tensor | None, channel: Sequence[Tensor | None] = ()) -> bool:
    """Whether these can go through the compiled passes: contiguous, on the CPU, fp32 or bf16, of
    one shape, with a multiple of 16 channels; what is per `channel` is (C,) and fp32."""
    if isinstance(loaded(), Unavailable):
        return False
    first = tensors[0]
    assert first is not None
    few = 0 < first.shape[-1] <= compiled.MOST_CHANNELS
    return few and plain(tensors, channel, "cpu", compiled.NAMES, multiple=16)


def measure(z: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel."""
    if not supports(z):
        return twin.measure(z)
    mean, var = z.new_empty(2, z.shape[-1], dtype=torch.float32)
    _call("measure", z, z, mean, var)
    return mean, var


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
    """s z + t (+ skip, or + s2 skip + t2), perhaps a ReLU; perhaps the bits of [output > 0]."""
    if not supports(z, skip, channel=(s, t, s2, t2)):
        return twin.normalise(z, s, t, skip, s2, t2, relu=relu, keep=keep)
    out = torch.empty_like(z)
    bits = torch.empty(z.numel() // 8, dtype=torch.uint8) if keep else None
    _call("normalise", z, z, s, t, skip, s2, t2, out, bits, int(relu))
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
    """dbeta, dgamma, dgamma of the shortcut, u: the sums BatchNorm's backward needs."""
    per_channel = (mean, inv, *(opened if isinstance(opened, tuple) else ()))
    if shortcut is not None:
        per_channel += shortcut[1:]
    if not supports(z, g, more, shortcut and shortcut[0], channel=per_channel):
        return twin.sums(g, z, mean, inv, opened=opened, more=more, shortcut=shortcut, keep=keep)
    dbeta, dgamma, second = z.new_empty(3, z.shape[-1], dtype=torch.float32)
    u = torch.empty_like(z) if keep else None
    bits = opened if isinstance(opened, Tensor) else None
    s, t = opened if isinstance(opened, tuple) else (None, None)
    z2, mean2, inv2 = shortcut or (None, None, None)
    outputs = (u, dbeta, dgamma, second if shortcut else None)
    _call("sums", z, g, more, z, mean, inv, s, t, bits, z2, mean2, inv2, *outputs)
    return dbeta, dgamma, second if shortcut else None, u


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
    """dz = s (u - k1 - x_hat k2); u = g, where s z + t > 0 if t is given."""
    if not supports(z, g, channel=(mean, inv, s, t, k1, k2)):
        return twin.input_gradient(g, z, mean, inv, s, k1, k2, t)
    dz = torch.empty_like(z)
    _call("input_gradient", z, g, z, mean, inv, s, t, k1, k2, dz)
    return dz


def keep_freed_memory() -> None:
    """Ask glibc to keep what a step frees for the next one: fresh memory costs a page fault every
    4 KB, a tenth of a step. For the whole process; does nothing with another C library."""
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        trim, top_pad, mmap = -1, -2, -3
        for option, value in ((mmap, 2**30), (trim, 2**31 - 1), (top_pad, 2**28)):
            mallopt(option, value)


def _call(name: str, shaped: Tensor, *arguments: Tensor | int | None) -> None:
    opened = loaded()
    assert isinstance(opened, ctypes.CDLL)
    function = getattr(opened, f"{name}_{compiled.NAMES[shaped.dtype]}")
    channels = shaped.shape[-1]
    values = [
        ctypes.c_int(each) if isinstance(each, int)
        else ctypes.c_void_p(None if each is None else each.data_ptr())
        for each in arguments
    ]  # fmt: skip
    rows = ctypes.c_int64(shaped.numel() // channels)
    function(*values, rows, ctypes.c_int64(channels), ctypes.c_int(torch.get_num_threads()))
