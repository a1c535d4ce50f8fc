"""What --help says of RunSpec's fields: which values each takes, and its default.

Everything is read off RunSpec, so nothing here can tell another default than the one that is used.
"""

import typing
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from gammabeta.spec import CHOICES, RESOLVED_BY, RunSpec

_METAVARS = {
    "model": "NETWORK", "trainable": "SUBSET", "weights": "FILE", "validation": "SHARE",
    "random_labels": "SHARE", "label_smoothing": "SHARE", "warmup_epochs": "EPOCHS",
}  # fmt: skip
_LEFT_OUT = {"schedule_steps": "the whole run", "subsample": "all", "test_subsample": "all"}
_FIELDS = {item.name: item for item in fields(RunSpec)}


def values_of(name: str) -> str:
    """What values a field takes: all of them, or their kind."""
    if name in CHOICES:
        return "{" + ",".join(CHOICES[name]) + "}"
    if name in _METAVARS:
        return _METAVARS[name]
    if name.endswith("_by_role"):
        return "ROLE=X,..."
    kind = typing.get_type_hints(RunSpec)[name]
    return "X,X" if typing.get_origin(kind) is tuple else "X" if kind is float else "N"


def field_help(name: str, defaults: Mapping[str, Any]) -> str:
    """What a field is, and its default. defaults: of a command that has some of its own."""
    own = _FIELDS[name]
    told = _written(name, defaults[name]) if name in defaults else _default(name)
    return f"{own.metadata['help']} (default: {told})"


def _default(name: str) -> str:
    """Where it follows from another field, that of each choice: "0.1 with sgd, else 0.001". Choices
    that the field does not belong to have an empty value, and are left out."""
    decider = next(
        (by for by, table in RESOLVED_BY.items() if any(name in row for row in table.values())),
        None,
    )
    if decider is None:
        return _written(name, _FIELDS[name].default)
    groups: dict[str, list[str]] = {}
    for choice, row in RESOLVED_BY[decider].items():
        if (value := row.get(name)) != ():
            groups.setdefault(_written(name, value), []).append(choice)
    whole = sum(map(len, groups.values())) == len(RESOLVED_BY[decider])
    rest = max(groups, key=lambda value: len(groups[value])) if whole else None
    parts = [f"{value} with {', '.join(each)}" for value, each in groups.items() if value != rest]
    return ", ".join(parts + [f"else {rest}"] * whole)


def _written(name: str, value: Any) -> str:
    """As it would be written on the command line, or in words what nothing means."""
    if value is None:
        return _LEFT_OUT[name]
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(_written(name, each) for each in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value) or "none"
