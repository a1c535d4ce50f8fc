"""Engines execute training steps: the same numbers, at different speed. See interface.py."""

import torch

from gammabeta.engine.eager import EagerEngine
from gammabeta.engine.interface import Engine
from gammabeta.errors import InputError, suggest

__all__ = ["ENGINES", "Engine", "choose_device", "choose_engine"]

ENGINES = {"eager": EagerEngine}


def choose_engine(name: str) -> type[EagerEngine]:
    """The engine called `name`; "auto" is the fastest one that supports everything."""
    if name == "auto":
        return EagerEngine
    if name not in ENGINES:
        raise InputError(f"unknown engine '{name}': {suggest(name, [*ENGINES, 'auto'])}")
    return ENGINES[name]


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" is the first GPU if there is one, else the CPU."""
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
