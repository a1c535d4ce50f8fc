"""Train the gammas and betas of a network whose every other weight stays at its random start."""

from gammabeta.errors import GammabetaError, InputError, RunError
from gammabeta.listen import progress
from gammabeta.models import create_model
from gammabeta.run import Run, load_run, train
from gammabeta.spec import RunSpec
from gammabeta.subset import Subset, Verdict, select
from gammabeta.version import __version__

__all__ = [
    "GammabetaError",
    "InputError",
    "Run",
    "RunError",
    "RunSpec",
    "Subset",
    "Verdict",
    "__version__",
    "create_model",
    "load_run",
    "progress",
    "select",
    "train",
]
