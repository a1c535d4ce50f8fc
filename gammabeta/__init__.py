"""Train the gammas and betas of a network whose every other weight stays at its random start."""

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

if "torch" not in sys.modules:
    # Threads of GNU's OpenMP wait for each other by spinning, for milliseconds: on a machine that
    # does anything else a step then takes up to thirty times as long. A shorter wait costs nothing.
    os.environ.setdefault("GOMP_SPINCOUNT", "100000")

    from gammabeta.stops import stop_quietly

    stop_quietly()

from gammabeta.bank import Bank
from gammabeta.delta import load_delta, load_network, save_delta
from gammabeta.errors import GammabetaError, InputError, RunError
from gammabeta.listen import progress
from gammabeta.models import create_model
from gammabeta.run import Run, load_run, train, train_members
from gammabeta.spec import RunSpec
from gammabeta.subset import Subset, Verdict, select
from gammabeta.sweep import grid, sweep
from gammabeta.version import __version__

if TYPE_CHECKING:
    from gammabeta.compact import compact_module
    from gammabeta.export import export_module

__all__ = [
    "Bank",
    "GammabetaError",
    "InputError",
    "Run",
    "RunError",
    "RunSpec",
    "Subset",
    "Verdict",
    "__version__",
    "compact_module",
    "create_model",
    "export_module",
    "grid",
    "load_delta",
    "load_network",
    "load_run",
    "progress",
    "save_delta",
    "select",
    "sweep",
    "train",
    "train_members",
]

_LATE = {"compact_module": "compact", "export_module": "export"}  # 0.7 s of imports


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(importlib.import_module(f"gammabeta.{_LATE[name]}"), name)
    raise AttributeError(f"module 'gammabeta' has no attribute '{name}'")
