"""The memory passes of BatchNorm + ReLU (+ add), forward and backward: the work that is left when
convolutions are frozen. What each computes is said, and done slowly, in twin.py.

On a CPU they are compiled C++ (native.py), on a GPU Triton kernels (on_gpu.py, kernels.py).
"""

import functools
import importlib.util
from types import ModuleType
from typing import Any

from torch import Tensor

from gammabeta.passes import native, twin
from gammabeta.passes.native import keep_freed_memory, why_slow, will_compile

__all__ = [
    "input_gradient", "keep_freed_memory", "measure", "normalise", "sums", "why_slow",
    "will_compile",
]  # fmt: skip


def measure(z: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel."""
    found: tuple[Tensor, Tensor] = _for(z).measure(z)
    return found


def normalise(z: Tensor, *rest: Any, **options: Any) -> tuple[Tensor, Tensor | None]:
    """s z + t (+ skip, or + s2 skip + t2), perhaps a ReLU; perhaps the bits of [output > 0]."""
    found: tuple[Tensor, Tensor | None] = _for(z).normalise(z, *rest, **options)
    return found


def sums(
    g: Tensor, z: Tensor, *rest: Any, **options: Any
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """dbeta, dgamma, dgamma of the shortcut, u: the sums BatchNorm's backward needs."""
    found: tuple[Tensor, Tensor, Tensor | None, Tensor | None] = _for(z).sums(
        g, z, *rest, **options
    )
    return found


def input_gradient(g: Tensor, z: Tensor, *rest: Any) -> Tensor:
    """dz = s (u - k1 - x_hat k2); u = g, where s z + t > 0 if t is given."""
    found: Tensor = _for(z).input_gradient(g, z, *rest)
    return found


def _for(z: Tensor) -> ModuleType:
    """The fastest passes for the device. Each takes every tensor: what it cannot do itself, the
    twin does."""
    if z.device.type == "cpu":
        return native
    return _triton() or twin


@functools.cache
def _triton() -> ModuleType | None:
    if importlib.util.find_spec("triton") is None:
        return None
    from gammabeta.passes import on_gpu

    return on_gpu
