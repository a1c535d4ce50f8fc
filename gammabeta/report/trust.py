"""What a sentence says with a number: its mean, how many seeds it has, whether their spread lets a
difference stand, and whether what was published may be held against it."""

from collections.abc import Sequence

from gammabeta import sentences
from gammabeta.analysis import Spread, in_percent
from gammabeta.names import readable
from gammabeta.paper.points import Point, View
from gammabeta.sentences import percent


def network(point: Point) -> str:
    return readable(point.spec.model)


def spread(point: Point) -> Spread:
    """Of a point that has a value."""
    assert point.accuracy is not None
    return point.accuracy


def mean(point: Point) -> str:
    top5 = f", {percent(point.top5.mean)} in the top 5" if point.top5 else ""
    return percent(spread(point).mean) + top5


def seeds(points: Sequence[Point]) -> str:
    """How many seeds each has."""
    return sentences.seeds([spread(point) for point in points])


def points_apart(one: float, other: float) -> float:
    """Two shares in percentage points from one another: as they are printed, to a tenth, so that a
    reader who subtracts finds the same."""
    return round(float(in_percent(one)) - float(in_percent(other)), 1)


def level(one: Point, other: Point) -> bool:
    """Whether the seeds of one reach those of the other, the same both ways; a single seed reaches
    no further than itself."""
    first, second = spread(one), spread(other)
    return first.low <= second.high and second.low <= first.high


def sure(one: Point, other: Point) -> str:
    """What the spread of the seeds says of a difference; nothing where there is no spread."""
    apart = _apart(one, other)
    if apart is None:
        return ""
    return ", and their seeds do not overlap" if apart else ", but their seeds overlap"


def trust(pairs: Sequence[tuple[Point, Point]]) -> str:
    """How many seeds the points of these differences have, and what that says of them."""
    points = list({id(point): point for pair in pairs for point in pair}.values())
    text = seeds(points)
    told = [apart for pair in pairs if (apart := _apart(*pair)) is not None]
    if not told:
        alone = sum(spread(point).n == 1 for point in points)
        if alone == len(points):
            return f"{text}, so no spread is known"
        one = "one of them has one seed" if alone == 1 else f"{alone} of them have one seed"
        return f"{text}; {one}, so no spread"
    overlaps = told.count(False)
    if len(told) == 1:
        text += ", which overlap" if overlaps else ", which do not overlap"
    elif overlaps:
        text += f", which overlap in {overlaps} of {len(told)} comparisons"
    else:
        text += ", which overlap in none of the comparisons"
    return text if len(told) == len(pairs) else f"{text}; where one seed is, no spread is known"


def of_whole(view: View) -> str:
    """What must stand beside a published number that is no target for a shortened recipe."""
    return "" if view.scale.epochs is None else ", with the full recipe, so no target for this one"


def _apart(one: Point, other: Point) -> bool | None:
    """Whether no seed of one is among those of the other; None where one has a single seed."""
    first, second = spread(one), spread(other)
    if min(first.n, second.n) < 2:
        return None
    return first.low > second.high or second.low > first.high
