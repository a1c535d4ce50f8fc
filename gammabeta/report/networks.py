"""The table of networks, which needs no runs: parameters, ours and as the paper prints them."""

from collections.abc import Sequence
from typing import Any

from gammabeta.names import readable
from gammabeta.paper import experiments
from gammabeta.paper.networks import is_rounded, network_rows
from gammabeta.sentences import share

_WHERE = {"imagenet": " on ImageNet", "report": " of the report"}


def network_table() -> dict[str, Any]:
    """What the template shows: question, answer, and rows of a network each."""
    rows = [
        {
            **row,
            "network": readable(row["name"]) + _WHERE.get(row["name"].partition("_")[0], ""),
            "share": row["bn"] / row["total"],
            "difference_total": _signed(row["difference_total"]),
            "difference_bn": _signed(row["difference_bn"]),
        }
        for row in network_rows()
    ]
    return {"question": experiments()["networks"].question, "answer": _answer(rows), "rows": rows}


def _answer(rows: Sequence[dict[str, Any]]) -> str:
    low, high = (end(rows, key=lambda row: row["share"]) for end in (min, max))
    text = (
        f"From {share(low['share'])} ({low['network']}) to {share(high['share'])} "
        f"({high['network']}) of all parameters."
    )
    printed = [
        (row["network"], what, row[key], row[f"published_{key}"])
        for row in rows
        for key, what in (("total", "parameters"), ("bn", "gammas and betas"))
        if row[f"published_{key}"] is not None
    ]
    other = [each for each in printed if not is_rounded(each[2], each[3])]
    text += f" Of {len(printed)} numbers that the paper prints, {len(printed) - len(other)} are "
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
