"""The paper's table of networks: our counts beside those it prints, which are rounded."""

import functools
from decimal import Decimal
from typing import Any

from gammabeta.models import architecture
from gammabeta.names import PAPER_NETWORKS
from gammabeta.paper.published import PARAMETER_COLUMNS, PUBLISHED_PARAMETERS
from gammabeta.roles import roles

_UNITS = {"K": 1_000, "M": 1_000_000}


def model_row(name: str) -> dict[str, Any]:
    """Parameter counts of one network, with the columns of the paper's table of networks."""
    return {"name": name, **_counts(name)}


@functools.cache  # a deep network takes its time to build, even without values
def _counts(name: str) -> dict[str, int]:
    counts = dict.fromkeys(("total", "bn", "shortcut_bn", "output", "shortcut"), 0)
    for role in roles(architecture(name)):
        counts["total"] += role.size
        if role.role in ("gamma", "beta"):
            counts["bn"] += role.size
            counts["shortcut_bn"] += role.size if role.on_shortcut else 0
        elif role.role in ("output", "shortcut"):
            counts[role.role] += role.size
    return counts


def network_rows() -> list[dict[str, Any]]:
    """Every network: `model_row`, what the paper prints of each of PARAMETER_COLUMNS ("14.0M"), and
    ours less that; None where nothing that it prints could be read."""
    found = []
    for name in PAPER_NETWORKS:
        row = model_row(name)
        printed = dict(zip(PARAMETER_COLUMNS, PUBLISHED_PARAMETERS.get(name, ()), strict=False))
        for key in PARAMETER_COLUMNS:
            text = printed.get(key)
            row[f"published_{key}"] = text
            row[f"difference_{key}"] = None if text is None else row[key] - printed_value(text)[0]
        found.append(row)
    return found


def printed_value(text: str) -> tuple[int, int]:
    """A rounded number as printed -> (value, unit of its last digit): "14.0M" -> (14_000_000,
    100_000)."""
    number, unit = Decimal(text.rstrip("KM")), _UNITS.get(text[-1], 1)
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int)  # no infinity is printed
    return int(number * unit), int(Decimal(10) ** exponent * unit)


def is_rounded(count: int, text: str) -> bool:
    """Whether `text` is what `count` is when it is rounded to as many digits."""
    value, unit = printed_value(text)
    return 2 * abs(count - value) <= unit
