"""The answer to each question of the paper, in a sentence composed from the points at hand.

None where the store cannot answer: a sentence never claims more than its points and seeds allow.
"""

from collections.abc import Callable, Sequence
from itertools import combinations, pairwise

from gammabeta.analysis import counted
from gammabeta.figures.series import DEEPER, WIDER, series
from gammabeta.names import readable
from gammabeta.paper.points import Point, View, other_data
from gammabeta.report.measured_answers import on_activity, on_clamp, on_gammas
from gammabeta.report.origins import quoted
from gammabeta.report.random_answers import on_random
from gammabeta.report.trust import (
    mean,
    network,
    points_apart,
    seeds,
    spread,
    sure,
    trust,
)
from gammabeta.sentences import percent

_SAME_COUNT = 1.15  # two networks have "about the same" number of values if no further apart


def answer(view: View) -> str | None:
    """One or two sentences; None if the runs there are cannot answer the question."""
    make = _ANSWERS.get(view.experiment.name)
    text = make(view) if make else None
    other = other_data(view.runs)
    return f"Not on ImageNet, but on {' and '.join(other)}: {text}" if text and other else text


def _depth(view: View) -> str | None:
    """Of `depth`, `cifar100` and `imagenet`: one network alone is worth a sentence too."""
    bn = _done(view, "bn")
    if not bn:
        return None
    if len(bn) > 1:
        return _growth(view, bn)
    sentence = f"On {network(bn[0])} gamma and beta alone reach {mean(bn[0])}"
    rivals = _rivals(view, bn[0])
    return (
        f"{sentence}{_beside(bn[0], rivals)} ({seeds([bn[0], *rivals])}). How it grows with depth "
        "is open: no other depth has finished."
    )


def _width(view: View) -> str | None:
    bn = _done(view, "bn")
    return _growth(view, bn) if len(bn) > 1 else None


def _growth(view: View, bn: Sequence[Point]) -> str:
    """From the first to the last network, and what else they do on the last that can tell."""
    first, last = bn[0], bn[-1]
    means = [spread(point).mean for point in bn]
    text = f"From {network(first)} to {network(last)} gamma and beta alone "
    if all(low < high for low, high in pairwise(means)):
        steps = f", higher at each of {len(bn) - 1} steps" if len(bn) > 2 else ""
        text += f"rise from {mean(first)} to {mean(last)}{steps}"
    else:
        text += f"go from {mean(first)} to {mean(last)}, not higher at every step"
    text += f" ({trust(list(pairwise(bn)))})."
    told = [point for point in bn if _rivals(view, point)]
    if told:
        rivals = _rivals(view, told[-1])
        text += f" On {network(told[-1])} they reach {mean(told[-1])}{_beside(told[-1], rivals)}"
        text += f" ({seeds([told[-1], *rivals])})."
    return text


def _rivals(view: View, bn: Point) -> list[Point]:
    """As many random weights, and everything, on the same network: those that are done."""
    there = {p.spec.trainable: p for p in view.done if p.spec.model == bn.spec.model}
    return [there[name] for name in ("random:2", "all") if name in there]


def _beside(bn: Point, rivals: Sequence[Point]) -> str:
    """What its rivals reach."""
    text = ""
    for rival in rivals:
        what = "everything"
        if rival.spec.trainable != "all":
            as_many = rival.trained == bn.trained
            what = f"{'as many' if as_many else f'{rival.trained:,}'} random weights"
        text += f", {what} {mean(rival)}"
    return text


def _count(view: View) -> str | None:
    """Deep against wide, network by network of about the same number of gammas and betas."""
    found = series(view)
    deep, wide = ([p for p in found[name] if p.accuracy] for name in (DEEPER, WIDER))
    pairs = [
        (mine, other)
        for other in wide
        for mine in deep
        if mine is not other
        and max(mine.trained or 0, other.trained or 0)
        <= _SAME_COUNT * min(mine.trained or 0, other.trained or 0)
    ]
    if not pairs:
        return None
    ahead = sum(spread(mine).mean > spread(other).mean for mine, other in pairs)
    told = "; ".join(
        f"{network(mine)} with {mine.trained:,} reaches {mean(mine)}, "
        f"{network(other)} with {other.trained:,} {mean(other)}"
        for mine, other in pairs
    )
    if len(pairs) == 1:
        start = "Depth" if ahead else "Width" if _differ(*pairs[0]) else "Neither"
        start += " is ahead where both can be compared"
    else:
        start = f"Depth is ahead in {ahead} of {len(pairs)} comparisons"
    return f"{start}: {told} ({trust(pairs)})."


def _differ(one: Point, other: Point) -> bool:
    return spread(one).mean != spread(other).mean


def _frozen_bn(view: View) -> str | None:
    told, used = [], []
    for model, there in _by_network(view).items():
        if "all" in there and "all-bn" in there:
            trained, frozen = there["all"], there["all-bn"]
            points = points_apart(spread(trained).mean, spread(frozen).mean)
            word = "costs" if points >= 0 else "gains"
            told.append(
                f"{word} {abs(points):.1f} points on {readable(model)}{sure(trained, frozen)}"
            )
            used += [trained, frozen]
    if not told:
        return None
    text = f"Freezing gamma and beta while everything else trains {', '.join(told)} "
    return f"{text}({seeds(used)}).{quoted(view)}"


def _field(field: str) -> Callable[[View], str | None]:
    """Best and worst value of a field of RunSpec, on each network that has two of them."""

    def make(view: View) -> str | None:
        told = []
        for name, points in series(view).items():
            done = [point for point in points if point.accuracy]
            if len(done) < 2:
                continue
            ranked = sorted(done, key=lambda point: -spread(point).mean)
            told.append(f"On {name} {_extremes(ranked, field)}; {seeds(done)}.")
        return " ".join(told) or None

    return make


def _extremes(ranked: Sequence[Point], field: str) -> str:
    """The first against the last; where one of these has one seed, against how far the seeds of any
    other are apart, which is what chance alone does."""
    best, worst = ranked[0], ranked[-1]
    between = points_apart(spread(best).mean, spread(worst).mean)
    ends = (
        f"between {getattr(best.spec, field)} ({mean(best)}) and "
        f"{getattr(worst.spec, field)} ({mean(worst)})"
    )
    if min(spread(best).n, spread(worst).n) > 1:
        return f"it makes {between:.1f} points {ends}{sure(best, worst)}"
    widest = max(ranked, key=_apart)
    if spread(widest).n == 1:
        return f"it makes {between:.1f} points {ends}, of which no spread is known"
    seeds_apart = _apart(widest)
    own = f"the {seeds_apart:.1f} points between seeds of {getattr(widest.spec, field)}"
    if between <= seeds_apart:
        return f"no difference shows beyond {own}: {between:.1f} points {ends}"
    return f"it makes {between:.1f} points {ends}, more than {own}"


def _gamma_beta(view: View) -> str | None:
    told = []
    for model, there in _by_network(view).items():
        alone = [there[name] for name in ("gamma", "beta") if name in there]
        if alone:
            parts = [f"{point.spec.trainable} alone reaches {mean(point)}" for point in alone]
            used = [*alone, *([there["bn"]] if "bn" in there else [])]
            parts += [f"both reach {mean(there['bn'])}"] if "bn" in there else []
            known = trust(list(combinations(used, 2))) if len(used) > 1 else seeds(used)
            told.append(f"On {readable(model)} {', '.join(parts)} ({known}).")
    return " ".join(told) or None


def _vgg(view: View) -> str | None:
    bn = _done(view, "bn")
    if not bn:
        return None
    told = []
    for point in bn:
        rivals = _rivals(view, point)
        told.append(
            f"{network(point)} reaches {mean(point)}{_beside(point, rivals)} "
            f"({seeds([point, *rivals])})"
        )
    return f"Under gamma and beta alone {'; '.join(told)}."


def _curves(view: View) -> str | None:
    """Where the best-known subset is early, before the first drop of the rate, and at the end."""
    point = next(iter([*_done(view, "bn"), *view.done]), None)
    if point is None:
        return None
    drop = int(point.spec.epochs * point.spec.drops[0]) if point.spec.drops else None
    told = []
    for epoch in filter(None, (drop and max(1, drop // 4), drop)):
        values = [row["test_accuracy"] for run in point.runs for row in run.metrics()
                  if row["epoch"] == epoch and row.get("test_accuracy") is not None]  # fmt: skip
        if values:
            told.append(f"{percent(sum(values) / len(values))} after {epoch}")
    start = f"Of {point.spec.epochs} epochs, {point.spec.trainable} on {network(point)} "
    early = f"is at {' and '.join(told)}, where the learning rate drops, and " if told else ""
    return f"{start}{early}ends at {mean(point)} ({seeds([point])})."


def _lr(view: View) -> str | None:
    told, used = [], []
    for name, points in series(view).items():
        done = [point for point in points if point.accuracy]
        if len(done) > 1:
            told.append(f"{name} is {_best_rate(done, [p for p in points if p.runs or p.others])}")
            used += done
    known = ", so no spread is known" if all(spread(point).n == 1 for point in used) else ""
    return f"{'; '.join(told)}; {seeds(used)}{known}." if told else None


def _best_rate(done: Sequence[Point], tried: Sequence[Point]) -> str:
    """With what speaks against it: that others read the same, that it lies at an end of the rates
    that were tried, or that its lead on the next is what the seeds of a rate are apart. tried: with
    those that have no value, which are no less tried."""
    best, second = sorted(done, key=lambda point: -spread(point).mean)[:2]
    lead = points_apart(spread(best).mean, spread(second).mean)
    known = f"of {len(tried)} rates ({mean(best)}{''.join(_without_value(tried))})"
    if not lead:
        level = [p for p in done if not points_apart(spread(best).mean, spread(p).mean)]
        rates = [f"{rate:g}" for rate in sorted(point.spec.lr for point in level)]
        return f"level at {', '.join(rates[:-1])} and {rates[-1]} {known}"
    text = f"best at {best.spec.lr:g} {known}"
    ends = [pick(point.spec.lr for point in tried) for pick in (min, max)]
    if best.spec.lr in ends:
        end = "lowest" if best.spec.lr == ends[0] else "highest"
        text += f", the {end} of them, so a {end.removesuffix('est')}er one may be better still"
    widest = max((best, second), key=_apart)
    if spread(widest).n == 1:  # how far the seeds of another rate are apart must do
        widest = max(done, key=_apart)
    if spread(widest).n > 1 and lead <= _apart(widest):
        text += (
            f", {lead:.1f} points ahead of {second.spec.lr:g}, which is no more than the "
            f"{_apart(widest):.1f} between seeds of {widest.spec.lr:g}"
        )
    return text


def _without_value(tried: Sequence[Point]) -> list[str]:
    """At which rates training failed, if only of some seeds, and at which nothing has finished."""
    told = []
    for point in sorted(tried, key=lambda point: point.spec.lr):
        failed = sum(run.status == "failed" for run in point.others)
        if failed and not point.runs:
            told.append(f"; training failed at {point.spec.lr:g}")
        elif failed:
            of = counted(len(point.runs) + len(point.others), "seed")
            told.append(f"; training failed at {point.spec.lr:g} with {failed} of {of}")
        elif not point.accuracy:
            told.append(f"; no result at {point.spec.lr:g}")
    return told


def _apart(point: Point) -> float:
    """How far its seeds are, in points."""
    return points_apart(spread(point).high, spread(point).low)


def _done(view: View, line: str) -> list[Point]:
    """The points of a line that have a value."""
    return [point for point in series(view).get(line, []) if point.accuracy]


def _by_network(view: View) -> dict[str, dict[str, Point]]:
    found: dict[str, dict[str, Point]] = {}
    for point in view.done:
        found.setdefault(point.spec.model, {})[point.spec.trainable] = point
    return found


_ANSWERS: dict[str, Callable[[View], str | None]] = {
    "depth": _depth,
    "width": _width,
    "count": _count,
    "random": on_random,
    "frozen-bn": _frozen_bn,
    "frozen-bn-imagenet": _frozen_bn,
    "norm-init": _field("norm_init"),
    "weight-init": _field("weight_init"),
    "gamma-beta": _gamma_beta,
    "vgg": _vgg,
    "curves": _curves,
    "lr": _lr,
    "gammas": on_gammas,
    "clamp": on_clamp,
    "activity": on_activity,
    "cifar100": _depth,
    "imagenet": _depth,
}
