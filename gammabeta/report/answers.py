"""The answer to each question of the paper, in a sentence composed from the points at hand.

None where the store cannot answer: a sentence never claims more than its points and seeds allow.
"""

from collections.abc import Callable, Sequence
from itertools import combinations, pairwise

from gammabeta.figures.measured import by_network, clamped, pools_by_network, quiet
from gammabeta.figures.series import DEEPER, WIDER, series
from gammabeta.gammas import small_share
from gammabeta.names import readable
from gammabeta.paper.points import STAND_INS, Point, View, other_data
from gammabeta.paper.published import PUBLISHED_FROZEN_COST, PUBLISHED_SMALL_GAMMAS
from gammabeta.report.trust import (
    in_abstract,
    level,
    mean,
    network,
    of_whole,
    points_apart,
    seeds,
    spread,
    sure,
    trust,
)
from gammabeta.sentences import percent

_DATA_NAMES = {"cifar10": "CIFAR-10", "imagenet": "ImageNet"}
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
        steps = f" at each of {len(bn) - 1} steps" if len(bn) > 2 else ""
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


def _random(view: View) -> str | None:
    """With which amounts of random weights bn is not met, met and passed, on each network."""
    told = []
    for name, points in series(view).items():
        bn = next((p for p in points if p.spec.trainable == "bn" and p.accuracy), None)
        random = [p for p in points if p.accuracy and p.spec.trainable != "bn"]
        if bn is None or not random:
            continue
        random.sort(key=lambda point: point.trained or 0)
        told.append(f"On {name} {_crossing(bn, random)}")
    return " ".join(told) or None


def _crossing(bn: Point, random: Sequence[Point]) -> str:
    """random: by their amounts; neighbours that stand alike to bn are told together."""
    groups: list[tuple[str, list[Point]]] = []
    for point in random:
        if level(point, bn):
            place = "level within their seeds" if spread(bn).n > 1 else "level"
        else:
            place = "above" if spread(point).mean > spread(bn).mean else "below"
        if not groups or groups[-1][0] != place:
            groups.append((place, []))
        groups[-1][1].append(point)
    told = "; ".join(f"{place} with {_amounts(group)}" for place, group in groups)
    known = "" if spread(bn).n > 1 else " Of gamma and beta no spread is known."
    seen = f"{mean(bn)} ({seeds([bn])}{_span(bn)})"
    return f"gamma and beta, {bn.trained:,} values, reach {seen}. Random weights are {told}.{known}"


def _span(point: Point) -> str:
    """From the lowest to the highest seed; nothing of one."""
    own = spread(point)
    return f", {percent(own.low)} to {percent(own.high)}" if own.n > 1 else ""


def _amounts(group: Sequence[Point]) -> str:
    if len(group) == 1:
        return f"{_amount(group[0])} ({mean(group[0])}, {seeds(group)})"
    first, last = group[0], group[-1]
    low, high = (sorted(spread(point).mean for point in group)[end] for end in (0, -1))
    return (
        f"{first.spec.trainable.partition(':')[2]} to {_amount(last)} "
        f"({percent(low)} to {percent(high)}, {seeds(group)})"
    )


def _amount(point: Point) -> str:
    return f"{point.spec.trainable.partition(':')[2]} a channel, {point.trained:,} in all"


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
    data = used[0].spec.data
    text = f"Freezing gamma and beta while everything else trains {', '.join(told)} "
    text += f"({seeds(used)})."
    changed = view.image_size is not None or other_data(view.runs)
    if data not in PUBLISHED_FROZEN_COST or changed:
        return text
    low, high = PUBLISHED_FROZEN_COST[data]
    span = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    return f"{text} Published{of_whole(view)}: it costs {span} points on {_DATA_NAMES[data]}."


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
    widest = max(ranked, key=lambda point: spread(point).high - spread(point).low)
    if spread(widest).n == 1:
        return f"it makes {between:.1f} points {ends}, of which no spread is known"
    seeds_apart = points_apart(spread(widest).high, spread(widest).low)
    own = f"the {seeds_apart:.1f} points between seeds of {getattr(widest.spec, field)}"
    if between <= seeds_apart:
        return f"it makes no difference beyond {own}: {between:.1f} points {ends}"
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
            best = max(done, key=lambda point: spread(point).mean)
            told.append(f"{name} is best at {best.spec.lr:g} of {len(done)} rates ({mean(best)})")
            used += done
    return f"{', '.join(told)}; {seeds(used)}." if told else None


def _gammas(view: View) -> str | None:
    """Of all gammas of a network; where bn and everything are there, one against the other."""
    told = []
    for model, pools in pools_by_network(view).items():
        shares = {pool.trainable: small_share(pool.values) for pool in pools}
        parts = [
            f"{percent(shares[pool.trainable])} under {pool.trainable} (n = {pool.n})"
            for pool in pools
        ]
        text = f"on {readable(model)} {' and '.join(parts)}"
        if "bn" not in shares or "all" not in shares:
            text += f", with no finished run of {'all' if 'bn' in shares else 'bn'} to compare"
        elif shares["all"]:
            text += f", {shares['bn'] / shares['all']:.1f} times as many"
        told.append(text)
    if not told:
        return None
    small = PUBLISHED_SMALL_GAMMAS
    text = f"Of all gammas, these end below 0.01 in size: {'; '.join(told)}."
    if view.data in STAND_INS:
        return text
    return (
        f"{text} {in_abstract(view)} A third party quotes {percent(small['bn'])} and "
        f"{percent(small['all'])}, {small['bn'] / small['all']:.1f} times as many, from the "
        f"paper{of_whole(view)}, naming no network."
    )


def _clamp(view: View) -> str | None:
    """What clamping at 0.01 costs, beside clamping as many random gammas."""
    told = []
    for point in view.done:
        found = clamped(point)
        if found is not None:
            told.append(
                f"On {network(point)} under {point.spec.trainable}, {percent(found.share)} of "
                f"gammas are below 0.01; without them accuracy goes from {percent(found.before)} "
                f"to {percent(found.after)}, without as many random ones to "
                f"{percent(found.random)} (n = {found.n}, {found.images:,} test images)."
            )
    return " ".join(told) or None


def _activity(view: View) -> str | None:
    told = []
    for model, points in by_network(view.done).items():
        known = [(point, each) for point in points if (each := quiet(point))]
        if known:
            same = len({each.images for _, each in known}) == 1
            parts = [
                f"{percent(each.mostly_off)} under {point.spec.trainable} (n = {each.n}"
                + ("" if same else f", on {each.images:,} test images") + ")"
                for point, each in known
            ]  # fmt: skip
            images = known[0][1].images
            seen = f", on {images:,} test images" if same and images else ""
            told.append(f"on {readable(model)} {' and '.join(parts)}{seen}")
    if not told:
        return None
    text = f"Off on more than 99 % of their inputs are these shares of features: {'; '.join(told)}."
    return text if view.data in STAND_INS else f"{text} {in_abstract(view)}"


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
    "random": _random,
    "frozen-bn": _frozen_bn,
    "frozen-bn-imagenet": _frozen_bn,
    "norm-init": _field("norm_init"),
    "weight-init": _field("weight_init"),
    "gamma-beta": _gamma_beta,
    "vgg": _vgg,
    "curves": _curves,
    "lr": _lr,
    "gammas": _gammas,
    "clamp": _clamp,
    "activity": _activity,
    "cifar100": _depth,
    "imagenet": _depth,
}
