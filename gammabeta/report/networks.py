"""The table of networks, which needs no runs: parameters, ours and as the paper prints them."""

from collections.abc import Sequence
from typing import Any

from gammabeta.names import readable
from gammabeta.paper import experiments
from gammabeta.paper.networks import is_rounded, network_rows
from gammabeta.paper.published import PARAMETER_COLUMNS
from gammabeta.sentences import share

_CALLED = {
    "total": "parameters",
    "bn": "gammas and betas",
    "output": "values of the output",
    "shortcut": "weights on shortcuts",
}
_WHERE = {"imagenet": " on ImageNet", "report": " of the report"}


def network_table() -> dict[str, Any]:
    """What the template shows: question, answer, and rows of a network each."""
    rows = [
        {
            **row,
            "network": readable(row["name"]) + _WHERE.get(row["name"].partition("_")[0], ""),
            "share": row["bn"] / row["total"],
            **{f"difference_{key}": _signed(row[f"difference_{key}"]) for key in PARAMETER_COLUMNS},
        }
        for row in network_rows()
    ]
    return {"question": experiments()["networks"].question, "answer": _answer(rows), "rows": rows}


def _answer(rows: Sequence[dict[str, Any]]) -> str:
    """The range is that of the networks in the paper's table: the others are not its answer."""
    theirs = [row for row in rows if row["published_total"] is not None]
    low, high = (end(theirs, key=lambda row: row["share"]) for end in (min, max))
    text = (
        f"Of the networks in the paper\u2019s table, from {share(low['share'])} ({low['network']}) "
        f"to {share(high['share'])} ({high['network']}) of all parameters."
    )
    printed = [
        (row["network"], what, row[key], row[f"published_{key}"])
        for row in rows
        for key, what in _CALLED.items()
        if row[f"published_{key}"] is not None
    ]
    other = [each for each in printed if not is_rounded(each[2], each[3])]
    text += f" Of {len(printed)} numbers that were read in it, {len(printed) - len(other)} are "
    text += "ours, rounded"
    told = "; ".join(
        f"for {name} it prints {theirs} {what}, we count {ours:,}"
        for name, what, ours, theirs in other
    )
    return f"{text}; {told}." if told else f"{text}."


def _signed(difference: int | None) -> str | None:
    if difference is None:
        return None
    return f"{difference:+,}".replace("-", "\N{MINUS SIGN}") if difference else "0"
