"""Held against the original: the same logits in fp64, and in fp32 no worse than the original's own
rounding, on the given images and on random ones, for other numbers of images and other sizes."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from gammabeta import rng
from gammabeta.compact.network import Network
from gammabeta.compact.original import logits
from gammabeta.errors import InputError, RunError

EXACT = 1e-10  # largest difference in fp64, over the largest logit
ROUNDING = 1e-5  # the same in fp32, or this many times what the original itself is off:
TIMES = 8.0
SINGLE = 1e-4  # the same in fp32 where fp64 does not tell how far the original itself is off
_NARROW = (torch.float32, torch.bfloat16, torch.float16)
_KERNELS = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True)
class Check:
    """images: `count` given or random ones, of size (H, W). Differences from the original in fp64,
    each over the largest logit: of the compact network in fp64 and in fp32, and of the original in
    fp32. For a network that fp64 does not run through fp64 is None, and the original's is 0."""

    images: str
    count: int
    size: tuple[int, ...]
    fp64: float | None
    fp32: float
    original_fp32: float

    @property
    def good(self) -> bool:
        if self.fp64 is None:
            return self.fp32 <= SINGLE
        allowed = max(ROUNDING, TIMES * self.original_fp32)
        return self.fp64 <= EXACT and self.fp32 <= allowed  # false for nan


def verify(
    original: nn.Module,
    network: Network,
    images: Tensor,
    sizes: Sequence[tuple[int, ...]] = (),
    seed: int = 0,
) -> tuple[list[Check], list[str]]:
    """The checks, all good, and what could not be checked. network: in fp64.

    images: (N, C, H, W) fp32. sizes: others (H, W) that the original takes; those that the compact
    network refuses are noted. Raises RunError where the logits differ.
    """
    draws = rng.generator(seed, "verify")

    def random(count: int, size: Sequence[int]) -> Tensor:
        values = draws.standard_normal((count, images.shape[1], *size), dtype=np.float32)
        return torch.from_numpy(values)

    judge = _Judge(original, network)
    size, count = tuple(images.shape[2:]), len(images)
    judge.hold("given", images)
    if not judge.checks:
        raise InputError(f"this network does not take the given images: {judge.notes[0]}")
    judge.hold("given", images[:1])
    judge.hold("random", random(count + 1, size))
    refused = {each: network.refusal((count, images.shape[1], *each)) for each in sizes}
    fitting = [each for each, why in refused.items() if not why]
    for place, other in enumerate(fitting):
        if place < 2:  # the others with one image, which takes less time
            kernel = {"mode": _KERNELS[len(other)], "align_corners": False}
            judge.hold("given", F.interpolate(images, other, **kernel))  # type: ignore[arg-type]
        judge.hold("random", random(count if place < 2 else 1, other))
    if len(fitting) < len(sizes):
        which = ", ".join(_shown(each) for each, why in refused.items() if why)
        reasons = " and ".join(dict.fromkeys(filter(None, refused.values())))
        judge.notes.append(
            f"the network refuses images of {which}, which the original takes: it was made for "
            f"sizes with {reasons}"
        )
    elif size and not any(larger > size for larger in sizes):
        judge.notes.append(f"the network takes no images larger than {_shown(size)}")
    return judge.checks, judge.notes


class _Judge:
    def __init__(self, original: nn.Module, network: Network) -> None:
        self.original = original.eval()
        self.double = copy.deepcopy(original).double().eval()
        self.network, self.single = network, copy.deepcopy(network).float()
        self.checks: list[Check] = []
        self.notes: list[str] = []

    def hold(self, name: str, images: Tensor) -> None:
        """One check, or a note where the original itself has no logits for these images."""
        count, size = len(images), tuple(images.shape[2:])
        what = f"{count} {name} images" + (f" of {_shown(size)}" if size else "")
        try:
            own = logits(self.original, images)
        except InputError:
            raise
        except Exception as error:
            self.notes.append(f"the network fails on {what} ({_line(error)}): not checked there")
            return
        if not bool(own.isfinite().all()):
            if not self.checks:
                raise InputError("the network's logits are not finite on the given images")
            self.notes.append(f"the network's logits are not finite on {what}: not checked there")
            return
        truth = self._truth(images)
        try:
            found = logits(self.single, images)
            wide = None if truth is None else _wide_logits(self.network, images)
        except Exception as error:
            raise RunError(
                f"the compact network fails on {what}, which the original takes ({_line(error)}): "
                "nothing was written; please report this network"
            ) from None
        if truth is None or wide is None:
            check = Check(name, count, size, None, _difference(own, found), 0.0)
        else:
            apart = [_difference(truth, each) for each in (wide, found, own)]
            check = Check(name, count, size, *apart)
        if not check.good:
            off = "" if check.fp64 is None else f"{check.fp64:.1e} in fp64, "
            raise RunError(
                f"the compact network computes something else than the original on {what} (off by "
                f"{off}{check.fp32:.1e} in fp32): nothing was written; please report this network"
            )
        self.checks.append(check)

    def _truth(self, images: Tensor) -> Tensor | None:
        """The original's logits in fp64, or None where its forward does not run in that."""
        try:
            return _wide_logits(self.double, images)
        except Exception as error:  # written for fp32
            why = f"this network does not run in fp64 ({_line(error)})"
            note = f"{why}: checked in fp32, to {SINGLE:g}"
            if not any(check.fp64 is None for check in self.checks):
                self.notes.append(note)
            return None


class _Wide(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside, every floating type that an operation asks for is fp64: a forward that casts to fp32
    on its way, or at its end, is then exact too, and can be compared as closely as any other."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        wide = [torch.float64 if each in _NARROW else each for each in args]
        named = {
            key: torch.float64 if each in _NARROW else each for key, each in (kwargs or {}).items()
        }
        return func(*wide, **named)


def _wide_logits(function: nn.Module, images: Tensor) -> Tensor:
    with _Wide():  # type: ignore[no-untyped-call]
        return logits(function, images.double())


def _difference(truth: Tensor, found: Tensor) -> float:
    """max |found - truth| / max |truth|."""
    if truth.shape != found.shape:
        return float("nan")
    most = float(truth.abs().max())
    return float((found.double() - truth.double()).abs().max()) / (most or 1.0)


def _shown(size: Sequence[int]) -> str:
    return "x".join(map(str, size))


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
