"""The answer to how many random weights a channel are worth gamma and beta."""

from collections.abc import Sequence

from gammabeta.figures.series import series
from gammabeta.paper.points import Point, View
from gammabeta.report.trust import level, mean, seeds, spread
from gammabeta.sentences import percent


def on_random(view: View) -> str | None:
    """With which amounts of random weights bn is not met, met and passed, on each network."""
    told, single = [], False
    for name, points in series(view).items():
        bn = next((p for p in points if p.spec.trainable == "bn" and p.accuracy), None)
        random = [p for p in points if p.accuracy and p.spec.trainable != "bn"]
        if bn is None or not random:
            continue
        random.sort(key=lambda point: point.trained or 0)
        told.append(f"On {name} {_crossing(bn, random)}")
        single = single or any(spread(point).n == 1 for point in (bn, *random))
    if single:
        told.append("Of what has one seed no spread is known: it is sorted by that seed alone.")
    return " ".join(told) or None


def _crossing(bn: Point, random: Sequence[Point]) -> str:
    """random: by their amounts; neighbours that stand alike to bn are told together."""
    groups: list[tuple[str, list[Point]]] = []
    for point in random:
        place = _place(point, bn)
        if not groups or groups[-1][0] != place:
            groups.append((place, []))
        groups[-1][1].append(point)
    channels = (bn.trained or 0) // 2  # each has a gamma and a beta
    told = "; ".join(f"{place} with {_amounts(group, channels)}" for place, group in groups)
    seen = f"{mean(bn)} ({seeds([bn])}{_span(bn)})"
    return f"gamma and beta, {bn.trained:,} values, reach {seen}. Random weights are {told}."


def _place(point: Point, bn: Point) -> str:
    """Where random weights are beside bn. A single seed is never level with seeds, which it has
    none of: it is among those of the other, or outside of them."""
    if not level(point, bn):
        return "above" if spread(point).mean > spread(bn).mean else "below"
    if spread(bn).n == 1:
        return "level" if spread(point).n == 1 else "at both sides of it, seed by seed,"
    return "among those seeds" if spread(point).n == 1 else "level within their seeds"


def _span(point: Point) -> str:
    """From the lowest to the highest seed; nothing of one."""
    own = spread(point)
    return f", {percent(own.low)} to {percent(own.high)}" if own.n > 1 else ""


def _amounts(group: Sequence[Point], channels: int) -> str:
    if len(group) == 1:
        return f"{_amount(group[0], channels)} ({mean(group[0])}, {seeds(group)})"
    first, last = group[0], group[-1]
    low, high = (sorted(spread(point).mean for point in group)[end] for end in (0, -1))
    return (
        f"{first.spec.trainable.partition(':')[2]} to {_amount(last, channels)} "
        f"({percent(low)} to {percent(high)}, {seeds(group)})"
    )


def _amount(point: Point, channels: int) -> str:
    """K a channel, unless fewer train than that: small filters have not as many weights."""
    amount = int(point.spec.trainable.partition(":")[2])
    fewer = (point.trained or 0) < amount * channels
    capped = ", or all of a filter that has fewer" if fewer else ""
    return f"{amount} a channel{capped}, {point.trained:,} in all"
