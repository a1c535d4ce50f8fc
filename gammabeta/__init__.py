"""Train the gammas and betas of a network whose every other weight stays at its random start."""

import os
import sys

if "torch" not in sys.modules:
    # Threads of GNU's OpenMP wait for each other by spinning, for milliseconds: on a machine that
    # does anything else a step then takes up to thirty times as long. A shorter wait costs nothing.
    os.environ.setdefault("GOMP_SPINCOUNT", "100000")

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
    "create_model",
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
