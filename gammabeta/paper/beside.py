"""Which published numbers are only recalled to be of the recipe that they stand beside: they are
shown with that caveat, and `Point.difference` takes no difference from them."""

from collections.abc import Iterable, Sequence

from gammabeta.paper.points import Point, table
from gammabeta.paper.published import is_recalled


def any_recalled(points: Iterable[Point]) -> bool:
    """Whether a published number of these is only recalled to be of its point's recipe."""
    return any(point.published is not None and is_recalled(point.spec) for point in points)


def checked_table(points: Sequence[Point]) -> list[dict[str, object]]:
    """The rows of `table`, with "recalled": True in those rows of which the published number is."""
    rows = table(points)
    for row, point in zip(rows, points, strict=True):
        if any_recalled([point]):
            row["recalled"] = True
    return rows
