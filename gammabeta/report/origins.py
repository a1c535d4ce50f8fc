"""What a view shows of the paper, and where each number of it is from.

What an answer quotes and its line among the sources are one `Quote`, so that no published number
stands in an answer without its source, and no source without its number.
"""

from dataclasses import dataclass

from gammabeta.analysis import plain
from gammabeta.names import readable
from gammabeta.paper.points import STAND_INS, Point, View, other_data
from gammabeta.paper.published import (
    FROM_FIGURE,
    PUBLISHED_DISABLED,
    PUBLISHED_FROZEN_COST,
    PUBLISHED_SMALL_GAMMAS,
    TOP5_ORIGIN,
    published_origin,
)
from gammabeta.report.trust import of_whole
from gammabeta.spec import differing

_PAPER = "Training BatchNorm and Only BatchNorm (arXiv 2003.00152)"
_NOTHING = "nothing that could be read was published for these points: ours stand alone"
_DATA_NAMES = {"cifar10": "CIFAR-10", "imagenet": "ImageNet"}


@dataclass(frozen=True)
class Quote:
    """text: as an answer says it. source: what is quoted, with its numbers, and where it is
    from."""

    text: str
    source: str


def quotes(view: View) -> list[Quote]:
    """What the answer of a view quotes of the paper besides the points of its figure."""
    name = view.experiment.name
    if view.data in STAND_INS or view.image_size is not None or other_data(view.runs):
        return []
    if name.startswith("frozen-bn"):
        return [_frozen(view)] if view.data in PUBLISHED_FROZEN_COST else []
    if name == "gammas":
        return [_disabled(), _small()]
    if name == "activity":
        return [_disabled_not_off()]
    return []


def quoted(view: View) -> str:
    """The sentence of an answer that quotes them; "" where there is nothing to quote."""
    told = "; ".join(each.text for each in quotes(view))
    return f" Published{of_whole(view)}: {told}." if told else ""


def has_published(view: View) -> bool:
    """Whether a published number stands in the answer, the table or the figures of a view."""
    return bool(quotes(view) or _drawn(view))


def published_sources(view: View) -> list[str]:
    """Where the published numbers of a view come from, a line each source."""
    if view.data in STAND_INS or not has_published(view):
        return [_NOTHING]
    told: dict[str, list[Point]] = {}
    for point in _drawn(view):
        if point.published is not None:
            told.setdefault(published_origin(point.spec), []).append(point)
    lines = [f"{_PAPER}, {FROM_FIGURE}" if FROM_FIGURE in told else _PAPER]
    if view.experiment.axis == "epochs":
        lines.append("the curve over the epochs: read off the learning curve of version 1")
    lines += [
        f"{_named(view, points)}: {origin}"
        for origin, points in told.items()
        if origin != FROM_FIGURE
    ]
    top5 = [point for point in _drawn(view) if point.published_top5 is not None]
    lines += [f"{_named(view, top5)}, first five guesses: {TOP5_ORIGIN}"] if top5 else []
    return lines + [each.source for each in quotes(view)]


def _drawn(view: View) -> list[Point]:
    """The points of which a published number is shown. What is measured on finished runs is not
    an accuracy: beside that none is."""
    if view.experiment.axis == "threshold":
        return []
    return [
        point
        for point in view.points
        if point.published is not None or point.published_top5 is not None
    ]


def _named(view: View, points: list[Point]) -> str:
    """Networks by what is the same of them: "ResNet-14, ResNet-32 under bn, norm init ones_ones"
    tells the fields too in which the points of the view differ and these are not the default."""
    fields = set(differing([point.spec for point in view.points])) - {"model", "trainable", "seed"}
    groups: dict[str, list[str]] = {}
    for point in points:
        chosen = [
            f", {field.replace('_', ' ')} {plain(value)}"
            for field, value in point.spec.chosen().items()
            if field in fields
        ]
        how = f"under {point.spec.trainable}{''.join(chosen)}"
        groups.setdefault(how, []).append(readable(point.spec.model))
    return "; ".join(f"{', '.join(models)} {how}" for how, models in groups.items())


def _frozen(view: View) -> Quote:
    low, high = PUBLISHED_FROZEN_COST[view.data]
    span = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    cost = f"{span} points on {_DATA_NAMES[view.data]}"
    source = f"that freezing gamma and beta costs {cost}: the introduction of version 3"
    return Quote(f"it costs {cost}", source)


def _disabled() -> Quote:
    return Quote(
        f"the paper\u2019s abstract says, of no network in particular, that {PUBLISHED_DISABLED}",
        f"that {PUBLISHED_DISABLED}: the abstracts of versions 2 and 3; version 1 says "
        "features, not random features",
    )


def _disabled_not_off() -> Quote:
    """Beside shares of ReLU features, which are counted by another definition."""
    said = _disabled()
    return Quote(
        f"{said.text}, which is another measure: disabled, as third parties tell, is a gamma below "
        "0.01 in size, not a ReLU that is off",
        f"{said.source}; that disabled means a gamma below 0.01 in size: third parties",
    )


def _small() -> Quote:
    small = PUBLISHED_SMALL_GAMMAS
    # whole numbers as they were told, and a quotient of these: a tenth would be ours
    shares = " and ".join(f"{100 * small[of]:.0f}\u202f%" for of in ("bn", "all"))
    return Quote(
        f"a third party quotes {shares}, {small['bn'] / small['all']:.0f} times as many, from the "
        "paper, naming no network",
        f"{shares} of gammas below 0.01 in size under bn and under all: version 1, as a third "
        "party tells who names no network",
    )
