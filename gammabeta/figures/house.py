"""The house style: what all figures share."""

import contextlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from matplotlib.transforms import offset_copy

from gammabeta.figures.chart import Chart, Series

WIDE, NARROW = 7.8, 3.7  # inches, for a page of 900 px and for a phone: no one size serves both
INK, GRID = "#6b7280", "#b9bfca"  # mid-tones, readable on white and on black
PUBLISHED = "#727680"  # of the published line and its name: 4.5 to 1 on white and on black
_TOPS = {0.01: 5, 0.02: 4, 0.05: 5, 0.1: 5, 0.2: 4, 0.4: 4, 0.6: 3, 0.8: 4, 1.0: 5}  # and steps
NAME_GAP = 0.045  # of the accuracy axis: between the names of two published lines
NAME_WIDE, NAME_NARROW, NAME_LEGEND = 30, 16, 40  # characters a line, for the name of a subset


@contextlib.contextmanager
def house_style() -> Iterator[None]:
    """matplotlib's own defaults under ours, so that a reader's matplotlibrc changes no page."""
    ours = {
        "svg.fonttype": "none",
        "pdf.fonttype": 42,  # text that can be found and copied
        "svg.hashsalt": "gammabeta",
        "font.size": 10,
        "text.parse_math": False,  # a subset such as name:.*$ is no formula
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "lines.linewidth": 2.0,
        "path.simplify": False,
    }
    with matplotlib.style.context(["default", ours]):
        yield


def new_figure(width: float, height: float) -> tuple[Chart, Axes]:
    figure, (axes,) = new_panels(width, height, 1)
    return figure, axes


def new_panels(width: float, height: float, count: int) -> tuple[Chart, list[Axes]]:
    """`count` axes that share both scales: side by side, on a phone one below the other. height:
    of one row of them, in inches."""
    shape = (count, 1) if width <= NARROW else (1, count)
    figure = Chart(figsize=(width, height * shape[0]), layout="constrained")
    panels = list(figure.subplots(*shape, sharex=True, sharey=True, squeeze=False).flat)
    for axes in panels:
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="both", length=3, width=0.8)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)
    return figure, panels


def accuracy_axis(axes: Axes, chance: float | None, *, vertical: bool) -> None:
    """0 to 100 %, a grid across it, and a dotted line where guessing gets."""
    axis = axes.yaxis if vertical else axes.xaxis
    (axes.set_ylim if vertical else axes.set_xlim)(0, 1)
    axis.set_ticks(np.linspace(0, 1, 6 if vertical else 5))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    axes.grid(visible=False, axis="both")
    axes.grid(visible=True, axis="y" if vertical else "x", color=GRID, linewidth=0.6)
    if chance is not None:
        line = axes.axhline if vertical else axes.axvline
        line(chance, color=INK, linewidth=1, linestyle=(0, (1, 2)))
        if isinstance(axes.figure, Chart):
            axes.figure.series.append(Series("guessing", None, [chance]))


def share_axis(axes: Axes, highest: float) -> None:
    """A share that is no accuracy: from 0 to a round number above `highest`, at most 100 %, so that
    shares of a few percent can be told apart."""
    top, steps = next(each for each in _TOPS.items() if each[0] >= min(1, 1.05 * highest))
    axes.set_ylim(0, top)
    axes.yaxis.set_ticks(np.linspace(0, top, steps + 1))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))


def layer_axis(axes: Axes, count: int) -> None:
    """Layers 1 to `count`: there is none at 0."""
    room = max(0.4, 0.02 * count)
    axes.set_xlim(1 - room, count + room)
    step = next(each for each in (1, 2, 5, 10, 20, 50, 100, 200, 500) if count <= 11 * each)
    axes.set_xticks([1, *range(max(2, step), count + 1, step)])


def fold(name: str, width: int) -> str:
    """A subset on lines of at most `width` characters, broken after a + where that will do; of a
    very long one only the two ends, as the page's table has all of it."""
    if len(name) > 4 * width:
        name = f"{name[: 2 * width - 1]}\u2026{name[-2 * width + 8 :]}"
    lines = [""]
    for part in re.findall(r"[^+]*\+|[^+]+", name):
        for start in range(0, len(part), width):
            piece = part[start : start + width]
            if len(lines[-1]) + len(piece) <= width:
                lines[-1] += piece
            else:
                lines.append(piece)
    return "\n".join(line for line in lines if line)


def label_of(trainable: str, note: str) -> str:
    return f"{fold(trainable, NAME_LEGEND)} ({note})"


def title_above(axes: Axes, text: str) -> None:
    """What the vertical axis shows, written above it: easier to read than along it."""
    axes.set_title(text, loc="left", fontsize=10, pad=8)


def beside(
    axes: Axes, text: str, place: int, *, right: bool = False, rise: float = 0, size: float = 10
) -> None:
    """One line of text left or right of row `place`, `rise` points above its middle."""
    axes.annotate(
        text,
        (1 if right else 0, place),
        xycoords=axes.get_yaxis_transform(),
        xytext=(8 if right else -8, rise),
        textcoords="offset points",
        ha="left" if right else "right",
        va="center",
        fontsize=size,
        annotation_clip=False,
    )


def legend_above(figure: Figure, width: float) -> None:
    """Above the axes, in as many columns as fit."""
    _, labels = figure.axes[0].get_legend_handles_labels()
    if not labels:
        return
    size = 10 if width >= WIDE else 9
    longest = max(len(line) for label in labels for line in label.split("\n"))
    column = 36 + 0.56 * size * longest  # points: the line, the gaps, the text
    columns = min(4, max(1, int(72 * width // column)))
    rows = math.ceil(len(labels) / columns) * (1 + max(label.count("\n") for label in labels))
    figure.set_figheight(figure.get_figheight() + 0.2 * rows)
    figure.legend(
        loc="outside upper left",
        ncols=columns,
        fontsize=size,
        frameon=False,
        handlelength=2.2,
        columnspacing=1.2,
        borderaxespad=0.2,
    )


def name_ends(axes: Axes, ends: Mapping[str, tuple[float, float]]) -> None:
    """The name of each published line beside its last point (x, accuracy); where two would overlap
    they move apart, up and down, and thin lines lead to them."""
    figure = axes.get_figure(root=True)
    for last in dict.fromkeys(x for x, _ in ends.values()):
        here = sorted((y, name) for name, (x, y) in ends.items() if x == last)
        places = apart([y for y, _ in here], NAME_GAP)
        moved = any(abs(place - y) > 1e-9 for place, (y, _) in zip(places, here, strict=True))
        beside = offset_copy(axes.transData, figure, x=18 if moved else 7, units="points")
        leader = {"arrowstyle": "-", "color": PUBLISHED, "linewidth": 0.5, "shrinkA": 1,
                  "shrinkB": 2, "relpos": (0, 0.5)}  # fmt: skip
        for place, (y, name) in zip(places, here, strict=True):
            axes.annotate(
                name, (last, y), xytext=(last, place), textcoords=beside, va="center", fontsize=8,
                color=PUBLISHED, arrowprops=leader if moved else None, annotation_clip=False,
            )  # fmt: skip


def apart(values: Sequence[float], gap: float) -> list[float]:
    """Ascending places in 0..1, at least `gap` from each other, as near to the ascending values as
    can be: their squared distances have the least sum there is."""
    # Less the gaps below it, a place may not fall: those that would share their mean.
    groups: list[tuple[float, int]] = []
    for number, value in enumerate(values):
        mean, count = value - number * gap, 1
        while groups and groups[-1][0] > mean:
            other, size = groups.pop()
            mean, count = (mean * count + other * size) / (count + size), count + size
        groups.append((mean, count))
    most = 1 - (len(values) - 1) * gap
    flat = [min(max(mean, 0.0), most) for mean, count in groups for _ in range(count)]
    return [place + number * gap for number, place in enumerate(flat)]
