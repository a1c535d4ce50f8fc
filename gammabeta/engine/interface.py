"""What every engine offers. `eager` is the judge: the others give its numbers, faster."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from gammabeta.data import Dataset
from gammabeta.data.augment import EpochPlan
from gammabeta.spec import RunSpec
from gammabeta.subset import Subset


class Engine(Protocol):
    """Executes steps on one device and owns the data there. Made from (model, subset, spec, data,
    device); `model` is the network it trains, with the trained values in it after each step."""

    name: str
    model: nn.Module
    subset: Subset
    spec: RunSpec
    data: Dataset
    device: torch.device

    def begin_epoch(self, plan: EpochPlan) -> None:
        """Take the order and the augmentation of one epoch, and set the totals to zero."""

    def step(self, start: int, stop: int, factor: float) -> None:
        """One step on the images start..stop of the order, at `factor` times the full learning
        rates. Does not wait for the device."""

    def totals(self) -> tuple[float, float]:
        """Mean training loss and accuracy over the images since begin_epoch. Waits."""
        ...

    def evaluate(self) -> dict[str, float]:
        """test_loss, test_accuracy and, with more than ten classes, test_top5. Waits."""
        ...

    def state(self) -> dict[str, Tensor]:
        """On the CPU: "trained/NAME", "statistics/NAME", "optimizer/NAME/ENTRY"."""
        ...

    def load(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `state`: what follows is bit-identical to never having stopped."""

    def close(self) -> None:
        """Take no more steps. What reads data in the background ends."""
