"""Engines execute training steps: the same numbers, at different speed. See interface.py."""

import os

import torch
from torch import nn

from gammabeta import passes
from gammabeta.engine import fused
from gammabeta.engine.eager import EagerEngine
from gammabeta.engine.fused import FusedEngine
from gammabeta.engine.interface import Engine
from gammabeta.engine.lean import LeanEngine
from gammabeta.errors import InputError, suggest
from gammabeta.fused import direct
from gammabeta.launch import launched
from gammabeta.spec import RunSpec

__all__ = [
    "ENGINES", "Engine", "check_engine", "choose_device", "choose_engine", "fast_precision",
]  # fmt: skip

ENGINES: dict[str, type[EagerEngine | FusedEngine]] = {
    each.name: each for each in (EagerEngine, LeanEngine, FusedEngine)
}


def check_engine(name: str) -> None:
    """Raise InputError for an engine that does not exist."""
    if name != "auto" and name not in ENGINES:
        raise InputError(f"unknown engine '{name}': {suggest(name, [*ENGINES, 'auto'])}")


def choose_engine(
    name: str, spec: RunSpec, model: nn.Module, device: torch.device, processes: int = 1
) -> tuple[type[EagerEngine | FusedEngine], str]:
    """The engine called `name`, and why: "auto" is the fastest one that supports this run.
    processes: how many train it together.

    Raises InputError where the one that is named does not.
    """
    check_engine(name)
    why_not_fused = fused.why_not(spec, model, device)
    if processes > 1:
        why_not_fused = f"it works in one process, and these are {processes}"
    if name == "fused" and why_not_fused is not None:
        raise InputError(f"the fused engine cannot run this: {why_not_fused}; write --engine auto")
    if name != "auto":
        slow = why_slow() if device.type == "cpu" and name != "eager" else None
        return ENGINES[name], "as asked" if slow is None else f"as asked, though slow here: {slow}"
    if device.type != "cpu":
        return EagerEngine, "the others have not been measured on a GPU: --engine fused tries one"
    slow = passes.why_slow()
    if slow is not None:
        return EagerEngine, f"the others would be slow here: {slow}"
    if why_not_fused is None:
        slower = direct.why_slow()
        by = "" if slower is None else f", by torch's convolutions: {slower}"
        return FusedEngine, f"the fastest for this network and subset{by}"
    return LeanEngine, f"not fused: {why_not_fused}"


def why_slow() -> str | None:
    """Why `lean` and `fused` lack what is compiled for this machine's CPU, or None."""
    return passes.why_slow() or direct.why_slow()


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" is the first GPU if there is one, else the CPU. Each of
    several processes has a GPU of its own."""
    if launched()[1] > 1 and name in ("auto", "cuda") and torch.cuda.is_available():
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"unknown device '{name}': write auto, cpu, cuda or cuda:0") from None
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device '{name}' is not supported: write auto, cpu, cuda or cuda:0")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise InputError(f"device '{name}' is not here ({found} GPUs found): write auto or cpu")
    return device


def fast_precision(device: torch.device) -> str:
    """bf16 where the device computes in it (about twice as fast), else fp32."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() else "fp32"
