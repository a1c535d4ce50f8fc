"""How a line looks: a colour and a line style, the same on every page and in every file."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

# Okabe and Ito's six, each moved in lightness until it has a contrast of at least 3 to both pages,
# the light and the dark, and still as far from the others as theirs are, for colour-blind eyes too.
COLORS = ("#2B62B5", "#BD2B0B", "#1A9070", "#CC79A7", "#E27700", "#0097F3")
LINES = ("-", "--", ":", "-.")
Dash = str | tuple[float, tuple[float, ...]]  # as matplotlib takes it
_MORE: tuple[Dash, ...] = (
    (0, (8, 3)), (0, (1, 4)), (0, (3, 1, 1, 1, 1, 1)), (0, (10, 2, 2, 2)), (0, (5, 5)), (0, (2, 1)),
    (0, (12, 4)), (0, (6, 2, 1, 2, 1, 2, 1, 2)),
)  # fmt: skip
LOOKS = len(COLORS) * len(LINES)  # subsets that a page can tell apart
MARKERS = {"-": "o", "--": "s", ":": "^", "-.": "D"}  # a point has no dashes: its shape tells
# Looks by number, see _style. What is often close in accuracy differs in colour; none, always at
# the bottom, can share one with all. The greens are random:K, so that a sweep over K is one family.
_KNOWN = {
    "bn": 0,
    "all": 1,
    "random:2": 2,
    "output": 3,
    "bn+output": 4,
    "gamma": 5,
    "bn+output+shortcut": 6,
    "none": 7,
    "output+shortcut": 9,
    "beta": 10,
    "all-bn": 11,
    "shortcut": 15,
    "bn, norm init ones_ones": 23,  # the paper's alternate initialisation
}
_RANDOM = (8, 14, 20)
_OTHER = [each for each in range(LOOKS) if each not in (*_KNOWN.values(), *_RANDOM)]


class Style(NamedTuple):
    """How one subset is drawn: a colour and a matplotlib line style."""

    color: str
    line: str

    @property
    def marker(self) -> str:
        """The shape of its points: one for each line style, so that points differ like lines."""
        return MARKERS[self.line]


def styles(trainables: Iterable[str]) -> dict[str, Style]:
    """One look for each subset; up to 24 subsets all look different.

    A look follows from the name alone, so it is the same on every page, but for a rare subset whose
    look another one of the same page has: it takes the next that is free.
    """
    names = sorted(set(trainables))
    looks: dict[str, int] = {}
    for name in names:
        if _home(name) not in looks.values():
            looks[name] = _home(name)
    for name in names:
        if name not in looks:
            # First those that belong to no name: a subset that comes later keeps its own.
            order = sorted(range(LOOKS), key=lambda n: (n not in _OTHER, (n - _home(name)) % LOOKS))
            looks[name] = next((each for each in order if each not in looks.values()), order[0])
    return {name: _style(look) for name, look in looks.items()}


def numbered(names: Iterable[str]) -> dict[str, Style]:
    """One look for each name, by its place: for lines that are no subsets, such as networks."""
    return {name: _style(place % LOOKS) for place, name in enumerate(names)}


def dashes(look: Mapping[str, Style]) -> dict[str, Dash]:
    """The dashes of the published lines of a figure, which all have one colour, so no two have the
    same: those of their subset, or where another line has these, the next that are free."""
    found: dict[str, Dash] = {}
    for name, style in look.items():
        free = [each for each in (style.line, *LINES, *_MORE) if each not in found.values()]
        found[name] = free[0] if free else style.line
    return found


def _home(name: str) -> int:
    """The look that a subset has unless another one of the page has it."""
    if name in _KNOWN:
        return _KNOWN[name]
    if match := re.fullmatch(r"random:(\d+)", name):
        return _RANDOM[int(match[1]) % len(_RANDOM)]
    return _OTHER[hashlib.sha256(name.encode()).digest()[0] % len(_OTHER)]


def _style(look: int) -> Style:
    """The line shifts by one after each round of colours, so that the pairs stay different."""
    rounds, color = divmod(look, len(COLORS))
    return Style(COLORS[color], LINES[(look + rounds) % len(LINES)])
