"""Lines of points with a spread, and the published ones beside them, on one axis of accuracy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from gammabeta.analysis import Spread
from gammabeta.figures.chart import Chart, Series
from gammabeta.figures.house import (
    NARROW,
    PUBLISHED,
    WIDE,
    accuracy_axis,
    house_style,
    label_of,
    legend_above,
    name_ends,
    new_figure,
    share_axis,
    title_above,
)
from gammabeta.figures.looks import Style, dashes


@dataclass(frozen=True)
class Line:
    """One line. x, ours, published: of each of its points; None where there is no number.

    level, published_level: values that belong to no place on the axis: horizontal lines.
    """

    name: str
    style: Style
    x: tuple[float, ...]
    ours: tuple[Spread | None, ...]
    published: tuple[float | None, ...]
    joined: bool = True
    level: Spread | None = None
    published_level: float | None = None


def over_names(
    lines: Sequence[Line], names: Sequence[str], axis: str, *, chance: float | None = None,
    title: str = "test accuracy", width: float = WIDE, is_accuracy: bool = True,
) -> Chart:  # fmt: skip
    """Accuracy, or another share, over names, evenly spaced; the x of the lines are places in
    `names`."""
    with house_style():
        figure, axes = new_figure(width, 3.9 if width > NARROW else 3.4)
        if is_accuracy:
            accuracy_axis(axes, chance, vertical=True)
        else:
            share_axis(axes, max(each.high for line in lines for each in line.ours if each))
        axes.set_xlim(-0.4, len(names) - 0.6)
        axes.set_xticks(range(len(names)), names)
        figure.about["names"] = [name.replace("\n", " ") for name in names]
        _draw(figure, axes, lines, axis, title, width)
        return figure


def over_numbers(
    lines: Sequence[Line], axis: str, *, ticks: Sequence[float] | None = None,
    chance: float | None = None, title: str = "test accuracy", width: float = WIDE,
) -> Chart:  # fmt: skip
    """Accuracy over positive numbers on a log axis, marked at `ticks` (None: at 1, 2, 5, 10...)."""
    with house_style():
        figure, axes = new_figure(width, 3.9 if width > NARROW else 3.4)
        accuracy_axis(axes, chance, vertical=True)
        axes.set_xscale("log")
        places = [x for line in lines for x in line.x]
        close = width <= NARROW or (places and max(places) > 100 * min(places))
        every = (1.0,) if close else (1.0, 2.0, 5.0)
        axes.xaxis.set_major_locator(FixedLocator(ticks) if ticks else LogLocator(subs=every))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(
            FuncFormatter(lambda x, _: f"{x:,.0f}" if x >= 1 else f"{x:g}")
        )
        if places:
            room = (max(places) / min(places)) ** 0.06 if max(places) > min(places) else 2
            axes.set_xlim(min(places) / room, max(places) * room)
        _draw(figure, axes, lines, axis, title, width)
        return figure


def _draw(
    figure: Chart, axes: Axes, lines: Sequence[Line], axis: str, title: str, width: float
) -> None:
    ends = _published(figure, axes, lines, width)
    for line in lines:
        _ours(figure, axes, line)
    if len(ends) > 1 and width > NARROW:
        name_ends(axes, ends)
    axes.set_xlabel(axis)
    title_above(axes, title)
    legend_above(figure, width)


def _published(
    figure: Chart, axes: Axes, lines: Sequence[Line], width: float
) -> dict[str, tuple[float, float]]:
    """Thin and grey, each in dashes of its own. Returns where those end that a name can stand
    beside; on a phone, where none has room, only those are drawn that stand beside ours, and
    levels have their names in the legend."""
    ends: dict[str, tuple[float, float]] = {}
    shown = [line for line in lines if width > NARROW or any(line.ours) or line.level]
    look = dashes({line.name: line.style for line in shown if _any_published(line)})
    for line in shown:
        known = [(x, y) for x, y in zip(line.x, line.published, strict=True) if y is not None]
        if known:
            lone = not line.joined or len(known) == 1
            x, y = zip(*known, strict=True)
            figure.curve(
                axes, Series(line.name, x, y, published=True), color=PUBLISHED, linewidth=1,
                linestyle="none" if lone else look[line.name], marker="_" if lone else "",
                markersize=16, zorder=3,
            )  # fmt: skip
            if line.joined:
                ends[line.name] = known[-1]
        if line.published_level is not None:
            name = f"bn on {line.name}"
            told = Series(name, None, [line.published_level], published=True)
            label = f"{name}, published" if width <= NARROW else None
            figure.curve(axes, told, color=PUBLISHED, linewidth=1, linestyle=look[line.name],
                         label=label)  # fmt: skip
            ends[name] = (axes.get_xlim()[1], line.published_level)
    drawn = [line for line in shown if _any_published(line)]
    if drawn and (width > NARROW or any(line.published_level is None for line in drawn)):
        axes.add_line(Line2D([], [], color=PUBLISHED, linewidth=1, label="published"))
    return ends


def _any_published(line: Line) -> bool:
    return line.published_level is not None or any(each is not None for each in line.published)


def _ours(figure: Chart, axes: Axes, line: Line) -> None:
    """The mean, broken where a point is missing; a band, and a whisker at each point, from the
    lowest to the highest seed."""
    color, path = line.style
    if line.level is not None:
        name, level = f"bn on {line.name}", line.level
        several = level.n > 1
        told = Series(name, None, [level.mean], [level.low] if several else None,
                      [level.high] if several else None, level.n)  # fmt: skip
        figure.curve(axes, told, color=color, band=0.12, linestyle=(0, (6, 2)), linewidth=1.2,
                     label=label_of(name, seeds([level])))  # fmt: skip
    known = [each for each in line.ours if each is not None]
    if not known:
        return
    nothing = Spread(np.nan, np.nan, np.nan, 0)
    points = [each or nothing for each in line.ours]
    mean, low, high = (
        np.array([getattr(each, key) for each in points]) for key in ("mean", "low", "high")
    )
    several = any(each.n > 1 for each in known)
    told = Series(line.name, line.x, mean, low if several else None, high if several else None,
                  [each.n for each in points])  # fmt: skip
    figure.curve(
        axes, told, color=color, band=0.2 if line.joined else 0, whiskers=True, linewidth=1.6,
        linestyle=path if line.joined else "none", marker=line.style.marker, markersize=4.5,
        label=label_of(line.name, seeds(known)),
    )  # fmt: skip


def seeds(spreads: Sequence[Spread]) -> str:
    """n = 3, or n = 1 to 3."""
    counts = sorted({each.n for each in spreads})
    return f"n = {counts[0]}" + (f" to {counts[-1]}" if len(counts) > 1 else "")
