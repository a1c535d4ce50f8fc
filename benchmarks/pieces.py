"""What the tables of tables.py are put together from."""

from collections.abc import Sequence
from typing import Any

from gammabeta.bench.show import number


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def where(environment: dict[str, Any]) -> str:
    """One line: on what it was measured."""
    threads, commit = environment["threads"], (environment["commit"] or "no commit")[:12]
    return (
        f"{environment['hardware']}, {threads} thread{'' if threads == 1 else 's'}, torch "
        f"{environment['torch']}, commit {commit}{' (changed)' if environment['dirty'] else ''}, "
        f"{environment['started'][:10]}."
    )


def span(found: dict[str, Any], unit: str) -> str:
    low, high = (number(found[f"{end}_{unit}"], 3) for end in ("low", "high"))
    return f"{number(found[f'median_{unit}'], 3)} {unit} ({low}-{high})"
