"""The lean engine: the eager engine over a converted network, which keeps one tensor a layer."""

import torch
from torch import nn

from gammabeta import lean
from gammabeta.data import Dataset
from gammabeta.engine.eager import EagerEngine
from gammabeta.passes import keep_freed_memory
from gammabeta.spec import RunSpec
from gammabeta.subset import Subset


class LeanEngine(EagerEngine):
    """Takes every run that the eager engine takes. conversions: what became of each layer."""

    name = "lean"

    def __init__(
        self, model: nn.Module, subset: Subset, spec: RunSpec, data: Dataset, device: torch.device
    ) -> None:
        super().__init__(model, subset, spec, data, device)
        self.conversions = lean.convert(self.model)
        if device.type == "cpu":
            keep_freed_memory()
