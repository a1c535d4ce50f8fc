"""The two ways in which gammabeta refuses or fails, and the helper that suggests the right word.

`InputError`: what was asked for cannot be done; the message is one line that says what to write
instead; the command line exits with 2 and nothing has been created.
`RunError`: the request was fine, something went wrong while it ran; exit code 1.
"""

import difflib
from collections.abc import Iterable


class GammabetaError(Exception):
    """Base class: every error that gammabeta raises on purpose."""


class InputError(GammabetaError, ValueError):
    """A wrong request. The message is one line and says what to write instead."""


class RunError(GammabetaError, RuntimeError):
    """A right request that failed while running (disk full, loss became nan, run locked, ...)."""


def suggest(word: str, known: Iterable[str], count: int = 3) -> str:
    """What to write instead of `word`: its nearest known words, or all of them if none is near."""
    spelled = {each.casefold(): each for each in sorted(known)}
    near = difflib.get_close_matches(word.casefold(), spelled, n=count, cutoff=0.5)
    if near:
        return "did you mean " + " or ".join(spelled[each] for each in near) + "?"
    return "known: " + ", ".join(spelled.values())
