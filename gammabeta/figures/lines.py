"""Lines of points with a spread, and the published ones beside them, on one axis of accuracy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from gammabeta.analysis import Spread
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
    title_above,
)
from gammabeta.figures.looks import Style


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
    title: str = "test accuracy", width: float = WIDE,
) -> Figure:  # fmt: skip
    """Accuracy over names, evenly spaced; the x of the lines are places in `names`."""
    with house_style():
        figure, axes = new_figure(width, 3.9 if width > NARROW else 3.4)
        accuracy_axis(axes, chance, vertical=True)
        axes.set_xlim(-0.4, len(names) - 0.6)
        axes.set_xticks(range(len(names)), names)
        _draw(figure, axes, lines, axis, title, width)
        return figure


def over_numbers(
    lines: Sequence[Line], axis: str, *, ticks: Sequence[float] | None = None,
    chance: float | None = None, title: str = "test accuracy", width: float = WIDE,
) -> Figure:  # fmt: skip
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
    figure: Figure, axes: Axes, lines: Sequence[Line], axis: str, title: str, width: float
) -> None:
    ends: dict[str, tuple[float, float]] = {}
    for line in lines:
        known = [(x, y) for x, y in zip(line.x, line.published, strict=True) if y is not None]
        named = width > NARROW or any(line.ours)  # where there is no room for its name, by ours
        if known and named:
            lone = not line.joined or len(known) == 1
            axes.plot(
                *zip(*known, strict=True), color=PUBLISHED, linewidth=1,
                linestyle="none" if lone else line.style.line, marker="_" if lone else "",
                markersize=16, zorder=3,
            )  # fmt: skip
            ends[line.name] = known[-1]
        if line.published_level is not None:
            axes.axhline(line.published_level, color=PUBLISHED, linewidth=1)
    for line in lines:
        _ours(axes, line)
    if len(ends) > 2 and lines[0].joined and width > NARROW:
        name_ends(axes, ends)
    axes.set_xlabel(axis)
    title_above(axes, title)
    if ends or any(line.published_level is not None for line in lines):
        axes.add_line(Line2D([], [], color=PUBLISHED, linewidth=1, label="published"))
    legend_above(figure, width)


def _ours(axes: Axes, line: Line) -> None:
    """The mean, broken where a point is missing; a band, and a whisker at each point, from the
    lowest to the highest seed."""
    color, path = line.style
    if line.level is not None:
        label = label_of(f"bn on {line.name}", seeds([line.level]))
        axes.axhline(line.level.mean, color=color, linestyle=(0, (6, 2)), linewidth=1.2,
                     label=label)  # fmt: skip
        if line.level.n > 1:
            axes.axhspan(line.level.low, line.level.high, color=color, alpha=0.12, linewidth=0)
    known = [each for each in line.ours if each is not None]
    if not known:
        return
    nothing = Spread(np.nan, np.nan, np.nan, 0)
    points = [each or nothing for each in line.ours]
    mean, low, high = (
        np.array([getattr(each, key) for each in points]) for key in ("mean", "low", "high")
    )
    if any(each.n > 1 for each in known):
        if line.joined:
            axes.fill_between(line.x, low, high, color=color, alpha=0.2, linewidth=0)
        axes.vlines(line.x, low, high, color=color, linewidth=1)
    axes.plot(
        line.x, mean, color=color, linestyle=path if line.joined else "none", linewidth=1.6,
        marker=line.style.marker, markersize=4.5, label=label_of(line.name, seeds(known)),
    )  # fmt: skip


def seeds(spreads: Sequence[Spread]) -> str:
    """n = 3, or n = 1 to 3."""
    counts = sorted({each.n for each in spreads})
    return f"n = {counts[0]}" + (f" to {counts[-1]}" if len(counts) > 1 else "")
