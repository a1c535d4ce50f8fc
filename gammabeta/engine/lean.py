"""The lean engine: the eager engine over a converted network, which keeps one tensor a layer."""

from typing import TYPE_CHECKING

from gammabeta import lean
from gammabeta.engine.eager import EagerEngine
from gammabeta.passes import keep_freed_memory

if TYPE_CHECKING:
    from gammabeta.processes import Processes


class LeanEngine(EagerEngine):
    """Takes every run that the eager engine takes. conversions: what became of each layer."""

    name = "lean"

    def prepare(self, across: "Processes | None") -> None:
        self.conversions = lean.convert(self.model, across)
        if self.device.type == "cpu":
            keep_freed_memory()
        super().prepare(across)  # those that stayed stock
