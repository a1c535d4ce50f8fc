"""What is told of training while it goes on: a run begins, takes steps, ends epochs, is over."""

from dataclasses import dataclass

from gammabeta.data import Dataset
from gammabeta.spec import RunSpec
from gammabeta.subset import Subset
from gammabeta.train import Epoch, Step
from gammabeta.trained import Run


@dataclass(frozen=True)
class Start:
    """Training is about to begin, after `epoch` finished epochs.

    engine, why: the engine that executes it, and why this one. team: the specs of all that train in
    step, each of which gets its Start in this order. step_seconds: of one step of the whole team,
    measured, then taken back. notes: what was noticed, a line each.
    """

    run: Run
    subset: Subset
    data: Dataset
    engine: str
    why: str
    device: str
    epoch: int
    step_seconds: float
    team: tuple[RunSpec, ...]
    notes: tuple[str, ...]

    @property
    def members(self) -> int:
        """How many train in step; 1 alone."""
        return len(self.team)


@dataclass(frozen=True)
class Ended:
    """A run of many is over: `error` says why it failed, in one line, or is None. left_to: the
    process that is training it instead, as "process 12 on host"."""

    spec: RunSpec
    error: str | None
    left_to: str | None = None


Event = Start | Step | Epoch | Ended
