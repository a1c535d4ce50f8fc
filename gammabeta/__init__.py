"""Train the gammas and betas of a network whose every other weight stays at its random start."""

import importlib
import importlib.util
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if "torch" not in sys.modules:
    # Threads of GNU's OpenMP wait for each other by spinning, for milliseconds: on a machine that
    # does anything else a step then takes many times as long. docs/performance.md has the numbers.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

    from gammabeta.stops import stop_quietly

    stop_quietly()

from gammabeta.version import __version__

if TYPE_CHECKING:
    from gammabeta.bank import Bank
    from gammabeta.compact import compact_module
    from gammabeta.delta import load_delta, load_network, save_delta
    from gammabeta.errors import GammabetaError, InputError, RunError
    from gammabeta.export import export_module
    from gammabeta.listen import progress
    from gammabeta.models import create_model
    from gammabeta.run import Run, load_run, train, train_members
    from gammabeta.spec import RunSpec
    from gammabeta.subset import Subset, Verdict, select
    from gammabeta.sweep import grid, sweep

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

# Imported when asked for: torch takes seconds, and --help or a mistyped flag needs none of it.
_WHERE = {
    "bank": ["Bank"],
    "compact": ["compact_module"],
    "delta": ["load_delta", "load_network", "save_delta"],
    "errors": ["GammabetaError", "InputError", "RunError"],
    "export": ["export_module"],
    "listen": ["progress"],
    "models": ["create_model"],
    "run": ["Run", "load_run", "train", "train_members"],
    "spec": ["RunSpec"],
    "subset": ["Subset", "Verdict", "select"],
    "sweep": ["grid", "sweep"],
}
_MODULE = {name: module for module, names in _WHERE.items() for name in names}


class _Package(ModuleType):
    """`train` and `sweep` are functions, and modules that are imported under the same names."""

    def __reduce__(self) -> Any:  # as modules are pickled, by joblib say
        return importlib.import_module, (self.__name__,)

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _MODULE and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


if not TYPE_CHECKING:  # which would take any name for right

    def __getattr__(name: str) -> Any:
        if name in _MODULE:
            value = getattr(importlib.import_module(f"gammabeta.{_MODULE[name]}"), name)
        elif _is_module(name):
            value = importlib.import_module(f"gammabeta.{name}")
        else:
            raise AttributeError(f"module 'gammabeta' has no attribute '{name}'")
        return globals().setdefault(name, value)


def _is_module(name: str) -> bool:
    plain = name.isidentifier() and not name.startswith("_")
    return plain and importlib.util.find_spec(f"gammabeta.{name}") is not None


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
