"""Trained leaves as an optimiser's parameter groups, one for each role."""

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from gammabeta.errors import InputError

Numbers = float | Mapping[str, float] | None


def by_role(
    text: str,
    leaves: Mapping[str, nn.Parameter],
    roles: Mapping[str, str],
    lr: Numbers,
    decay: Numbers,
) -> list[dict[str, Any]]:
    """See `Subset.parameter_groups`. text: the subset, for messages. roles: by name."""
    found: dict[str, dict[str, Any]] = {}
    for name, leaf in leaves.items():
        role = roles[name]
        found.setdefault(role, {"params": [], "role": role})["params"].append(leaf)
    for argument, key, given in (("lr", "lr", lr), ("decay", "weight_decay", decay)):
        numbers = given if isinstance(given, Mapping) else dict.fromkeys(found, given)
        for role, value in numbers.items():
            if role not in found:
                raise InputError(
                    f"{argument} names '{role}', of which nothing trains under '{text}': "
                    f"write one of {', '.join(sorted(found)) or 'none at all'}"
                )
            if value is None:
                continue
            if not (isinstance(value, int | float) and 0 <= value < math.inf):
                raise InputError(f"{argument} of '{role}' is {value}: write 0 or more")
            found[role][key] = value
    return list(found.values())
