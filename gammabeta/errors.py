"""The two ways in which gammabeta refuses or fails, and the helper that suggests the right word.

`InputError`: what was asked for cannot be done; the message is one line that says what to write
instead; the command line exits with 2 and nothing has been created.
`RunError`: the request was fine, something went wrong while it ran; exit code 1.
What several modules refuse has its words here, so that it reads the same everywhere.
"""

import contextlib
import difflib
import math
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path


class GammabetaError(Exception):
    """Base class: every error that gammabeta raises on purpose."""

    # Of several processes the first says what went wrong; another one where the first has gone.
    speaks = False


class InputError(GammabetaError, ValueError):
    """A wrong request. The message is one line and says what to write instead.

    about: the one field of RunSpec or argument that is wrong, if it is one. Messages have Python's
    names; by this the command line knows the flag, or the file, that the value came from.
    """

    def __init__(self, message: str, about: str | None = None) -> None:
        super().__init__(message)
        self.about = about


class RunError(GammabetaError, RuntimeError):
    """A right request that failed while running (disk full, loss became nan, run locked, ...)."""


class HeldError(RunError):
    """Another process is at work on the same. by: which, such as "process 12 on host"."""

    def __init__(self, message: str, by: str = "") -> None:
        super().__init__(message)
        self.by = by


@contextlib.contextmanager
def about(name: str) -> Iterator[None]:
    """Every InputError of the block is about `name`, unless it says itself what it is about."""
    try:
        yield
    except InputError as error:
        error.about = error.about or name
        raise


def suggest(word: str, known: Iterable[str], count: int = 3) -> str:
    """What to write instead of `word`: those known words that it begins, else the nearest, or all
    of them if none is near."""
    spelled = {each.casefold(): each for each in sorted(known)}
    folded = word.casefold()
    begun = [each for each in spelled if folded.strip("-") and each.startswith(folded)]
    begun = sorted(begun, key=len)[:count]
    near = begun or difflib.get_close_matches(folded, spelled, n=count, cutoff=0.5)
    if near:
        return "did you mean " + " or ".join(spelled[each] for each in near) + "?"
    return "known: " + ", ".join(spelled.values())


def no_runs(folder: str | Path | None) -> InputError:
    """Where a run is wanted and there is none. folder: of the runs, missing or without any; None
    where the runs came from elsewhere."""
    where = "" if folder is None else f" in {folder}"
    if folder is not None and not Path(folder).exists():
        where += ", for there is no such folder"
    return InputError(
        f"there are no runs{where}: train one first, for example gammabeta demo, or name the "
        "folder that has yours",
        "runs",
    )


def in_full(number: float) -> str:
    """A number as it was typed, never rounded: 1000001 and 0.00001, not 1e+06 and 1e-05."""
    if not math.isfinite(number):
        return str(number)
    text = f"{Decimal(str(number)):f}"
    text = text.rstrip("0").removesuffix(".") if "." in text else text
    return text if len(text) <= 30 else str(number)
