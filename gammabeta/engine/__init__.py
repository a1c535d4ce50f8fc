"""Engines execute training steps: the same numbers, at different speed. `eager` is the judge.

An engine is built from (model, subset, spec, dataset, device), owns the data on its device, and has

    begin_epoch(plan)                 the order and augmentation of one epoch, from data/augment.py
    step(start, stop, factor)         one step on images start..stop of that order; no waiting
    totals() -> (loss, accuracy)      means over the images since begin_epoch; waits for the device
    evaluate() -> dict                loss, accuracy and perhaps top5 on the test images
    state() / load(state)             trained values, statistics and optimiser state by name
"""

import torch

from gammabeta.engine.eager import EagerEngine
from gammabeta.errors import InputError, suggest

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
