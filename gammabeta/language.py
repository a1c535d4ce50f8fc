"""The subset language: which parameters train, as a short text such as ``bn+output`` or ``all-bn``.

A subset is a union of named parts (``+``), from which others can be taken away (``-``). Order does
not matter; `parse` gives one canonical text for every way of writing the same thing, and that text
is what a run's identity is made of. What a part selects in a network is decided in subset.py.

    all, none        everything, nothing
    bn               gamma and beta of every normalisation layer
    gamma, beta      one of the two
    output           the classifier
    shortcut         the 1x1 convolutions on shortcuts
    random:K         K randomly chosen weights per output channel of every convolution
    bias             every bias that is not a beta
    name:REGEX       parameters whose name matches the whole regular expression

A ``name:`` part reaches to the next ``+`` or ``-`` that starts a known part, so a regular
expression may hold both signs.
"""

import re
from dataclasses import dataclass

from gammabeta.errors import InputError, suggest

PLAIN_PARTS = ("all", "none", "bn", "gamma", "beta", "output", "shortcut", "bias")
_PART_START = "|".join([*(rf"{part}(?=[+-]|$)" for part in PLAIN_PARTS), r"random:\d+", "name:"])


@dataclass(frozen=True)
class Expression:
    """A parsed subset: the union of `plus` without the union of `minus`, both canonical.

    per_channel: K of ``random:K``, or 0 where no random weights are asked for.
    """

    plus: tuple[str, ...]
    minus: tuple[str, ...] = ()
    per_channel: int = 0

    def __str__(self) -> str:
        plus = [*self.plus, *([f"random:{self.per_channel}"] if self.per_channel else [])]
        return "+".join(sorted(plus) or ["none"]) + "".join(f"-{part}" for part in self.minus)


def parse(text: str) -> Expression:
    """Read a subset. Raises InputError with the nearest right part for a wrong one."""
    compact = re.sub(r"\s*([+-])\s*", r"\1", text.strip())
    if not compact:
        raise InputError("the subset is empty: write for example bn, bn+output or none")
    signs_and_parts = _split(compact)
    plus: set[str] = set()
    minus: set[str] = set()
    per_channel = 0
    for sign, part in signs_and_parts:
        if part.startswith("random:"):
            if sign == "-":
                raise InputError(f"'{part}' cannot be taken away: write only '+{part}'")
            per_channel = max(per_channel, _per_channel(part))
        else:
            (plus if sign == "+" else minus).add(_checked(part, text))
    plus, minus = _absorb(plus), _absorb(minus)
    if "none" in minus:
        raise InputError(f"'-none' in '{text}' takes nothing away: leave it out")
    if "all" in minus or (plus <= minus and not per_channel):
        raise InputError(f"'{text}' takes away all that it selects: write none")
    if "all" in plus:
        per_channel = 0
    return Expression(tuple(sorted(plus - {"none"})), tuple(sorted(minus)), per_channel)


def _split(text: str) -> list[tuple[str, str]]:
    """'bn+name:a-b-output' -> [('+', 'bn'), ('+', 'name:a-b'), ('-', 'output')]."""
    found: list[tuple[str, str]] = []
    rest = text if text[0] in "+-" else "+" + text
    while rest:
        sign, rest = rest[0], rest[1:]
        ends = rf"[+-](?={_PART_START})" if rest.startswith("name:") else r"[+-]"
        end = re.search(ends, rest)
        part = rest[: end.start()] if end else rest
        if not part:
            raise InputError(f"'{text}' has a sign without a part: write for example bn+output")
        found.append((sign, part))
        rest = rest[end.start() :] if end else ""
    return found


def _per_channel(part: str) -> int:
    digits = part.removeprefix("random:")
    if not re.fullmatch("[0-9]{1,9}", digits) or int(digits) < 1:
        raise InputError(f"'{part}': write random:K with K = 1 or more, for example random:2")
    return int(digits)


def _checked(part: str, text: str) -> str:
    if part.startswith("name:"):
        try:
            re.compile(part.removeprefix("name:"))
        except (re.error, OverflowError, RecursionError) as error:
            raise InputError(f"'{part}' is no regular expression ({error})") from None
        if part == "name:":
            raise InputError(f"'name:' in '{text}' needs a regular expression, as in name:fc.*")
        return part
    if part not in PLAIN_PARTS:
        hint = suggest(part, [*PLAIN_PARTS, "random:2", "name:REGEX"])
        raise InputError(f"unknown subset part '{part}' in '{text}': {hint}")
    return part


def _absorb(parts: set[str]) -> set[str]:
    """Write the same set of tensors one way: gamma+beta is bn, bn+gamma is bn, all+x is all."""
    if "all" in parts:
        return {"all"}
    if {"gamma", "beta"} <= parts:
        parts = parts | {"bn"}
    if "bn" in parts:
        parts = parts - {"gamma", "beta"}
    return parts - {"none"} or parts
