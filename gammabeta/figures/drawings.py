"""Which figures an experiment has: its points to lines, and what is drawn of them at any width."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gammabeta.analysis import Spread
from gammabeta.curves import curves
from gammabeta.figures.chart import Chart
from gammabeta.figures.house import WIDE
from gammabeta.figures.lines import Line, over_names, over_numbers
from gammabeta.figures.looks import Style, numbered, styles
from gammabeta.figures.maps import maps_figure, maps_of
from gammabeta.figures.series import are_subsets, batchnorm_values, network_ticks, series
from gammabeta.figures.subsets import learning_curves
from gammabeta.figures.thresholds import threshold_drawings
from gammabeta.paper.points import Point, View
from gammabeta.paper.published import PUBLISHED_CURVES

_STARTS = {"uniform": "U(0, 1), 0", "ones": "1, 0", "ones_ones": "1, 1", "symmetric": "U(-1, 1), 0"}


@dataclass(frozen=True)
class Drawing:
    """One figure of an experiment. key: tells it from the others, "" for the first. title: for a
    heading and a screen reader. draw: makes it at a width in inches."""

    key: str
    title: str
    draw: Callable[[float], Chart]


def drawings(view: View) -> list[Drawing]:
    """The figures for which the store has something to show; none for an experiment without."""
    if not view.done:
        return []
    axis = view.experiment.axis
    if axis == "epochs":
        return _curves(view)
    if axis == "threshold":
        return [Drawing(*each) for each in threshold_drawings(view, chance_of(view))]
    if not axis:
        return _maps(view)
    found = [Drawing("", "Test accuracy", functools.partial(_lines, view, "accuracy"))]
    if view.data == "imagenet" and any(point.top5 for point in view.points):
        found.append(Drawing("top5", "Top-5 accuracy", functools.partial(_lines, view, "top5")))
    return found


def figure_for(view: View, width: float = WIDE) -> Chart | None:
    """The first figure of an experiment; None where there is nothing to draw."""
    found = drawings(view)
    return found[0].draw(width) if found else None


def _lines(view: View, quantity: str, width: float) -> Chart:
    axis = view.experiment.axis
    found = series(view)
    look = styles(found) if are_subsets(view) else numbered(found)
    title = "test accuracy" if quantity == "accuracy" else "test accuracy, top 5"
    chance = chance_of(view) if quantity == "accuracy" else None
    if axis in ("parameters", "lr"):
        lines = [_numbered_line(axis, name, look[name], points) for name, points in found.items()]
        ticks = sorted({point.spec.lr for point in view.points}) if axis == "lr" else None
        label = "learning rate" if axis == "lr" else "values trained"
        return over_numbers(lines, label, ticks=ticks, chance=chance, title=title, width=width)
    names = list(dict.fromkeys(str(getattr(point.spec, axis)) for point in view.points))
    apart = 0.0 if axis == "model" else 0.12  # where the order means nothing, points stand side by
    lines = []  # side and no line joins them
    for place, (name, points) in enumerate(found.items()):
        aside = apart * (place - (len(found) - 1) / 2)
        lines.append(
            Line(
                name, look[name],
                tuple(names.index(str(getattr(point.spec, axis))) + aside for point in points),
                tuple(_quantity(point, quantity) for point in points),
                tuple(_published(point, quantity) for point in points),
                joined=axis == "model",
            )
        )  # fmt: skip
    ticks_at, label = network_ticks(names) if axis == "model" else _field_ticks(names, axis)
    return over_names(lines, ticks_at, label, chance=chance, title=title, width=width)


def _numbered_line(axis: str, name: str, style: Style, points: Sequence[Point]) -> Line:
    """Over a number of each point. Among random weights, bn is a level to be reached."""
    level = None
    if axis == "parameters" and any(p.spec.trainable.startswith("random:") for p in points):
        level = next((point for point in points if point.spec.trainable == "bn"), None)
        points = [point for point in points if point.spec.trainable != "bn"]
    placed = [(x, point) for point in points if (x := _place(point, axis)) is not None]
    placed.sort(key=lambda each: each[0])
    return Line(
        name, style,
        tuple(x for x, _ in placed),
        tuple(point.accuracy for _, point in placed),
        tuple(point.published for _, point in placed),
        level=level.accuracy if level else None,
        published_level=level.published if level and (level.accuracy or placed) else None,
    )  # fmt: skip


def _place(point: Point, axis: str) -> float | None:
    if axis == "lr":
        return point.spec.lr
    if point.trained is None and point.spec.trainable == "bn":
        return batchnorm_values(point.spec.model)
    return point.trained


def _quantity(point: Point, quantity: str) -> Spread | None:
    return point.accuracy if quantity == "accuracy" else point.top5


def _published(point: Point, quantity: str) -> float | None:
    return point.published if quantity == "accuracy" else point.published_top5


def _field_ticks(values: Sequence[str], field: str) -> tuple[list[str], str]:
    if field == "norm_init":
        return [f"{value}\n{_STARTS.get(value, '')}" for value in values], "start of gamma, beta"
    return [value.replace("_", "\n") for value in values], field.replace("_", " ")


def _curves(view: View) -> list[Drawing]:
    found = curves(view.runs)
    if not found:
        return []
    whole = view.scale.epochs is None and any(point.published for point in view.points)
    published = PUBLISHED_CURVES if whole else {}
    look = styles({*(curve.trainable for curve in found), *published})

    def draw(width: float) -> Chart:
        return learning_curves(
            found, look, chance=chance_of(view), width=width,
            published=published,
        )  # fmt: skip

    return [Drawing("", "Test accuracy over the epochs", draw)]


def _maps(view: View) -> list[Drawing]:
    """Of the report; any other table has no feature maps."""
    found = {subset: layers for subset, (_, layers) in maps_of(view).items()}
    if not found:
        return []
    return [Drawing("", "Feature maps", functools.partial(maps_figure, found))]


def chance_of(view: View) -> float | None:
    """What guessing reaches; None where no run says how many classes there are."""
    classes = next((run.inputs["data"].get("num_classes") for run in view.runs), None)
    return 1 / classes if classes else None
