"""Ours beside the published numbers: which of them a difference may be taken from.

A difference reads as a check, so a number that is only recalled to be of the same recipe gets none.
"""

from collections.abc import Iterable, Sequence

from gammabeta.paper.points import Point, table
from gammabeta.paper.published import is_recalled


def difference(point: Point) -> float | None:
    """Ours less published, in 0..1; None where either is missing or the published one recalled."""
    return None if is_recalled(point.spec) else point.difference


def any_recalled(points: Iterable[Point]) -> bool:
    """Whether a published number of these is only recalled to be of its point's recipe."""
    return any(point.published is not None and is_recalled(point.spec) for point in points)


def checked_table(points: Sequence[Point]) -> list[dict[str, object]]:
    """The rows of `table`, without a difference where there may be none, and with "recalled": True
    in those rows alone."""
    rows = table(points)
    for row, point in zip(rows, points, strict=True):
        if any_recalled([point]):
            row |= {"difference": None, "recalled": True}
    return rows
