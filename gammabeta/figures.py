"""Rows and arrays to matplotlib figures, and figures to SVG text that a page can hold.

Pure functions: no pyplot, no global state, no files; the same numbers give the same SVG. A subset
has one colour and one line style, on every page, so print and colour-blind readers lose nothing.
An accuracy axis runs from 0 to 100 % always: a cut axis would flatter the difference.
"""

import contextlib
import hashlib
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import NamedTuple

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from gammabeta.analysis import GroupRow, counted
from gammabeta.curves import Curve, GammaPool
from gammabeta.gammas import SMALL, small_share

WIDE, NARROW = 7.8, 3.7  # inches, for a page of 900 px and for a phone: no one size serves both
INK, GRID = "#6b7280", "#b9bfca"  # mid-tones, readable on white and on black
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINES = ("-", "--", ":", "-.")
LOOKS = len(OKABE_ITO) * len(LINES)  # subsets that a page can tell apart
# Looks by number, see _style. What is often close in accuracy differs in colour; none, always at
# the bottom, can share one with all. The greens are random:K, so that a sweep over K is one family.
_KNOWN = {
    "bn": 0,
    "all": 1,
    "random:2": 2,
    "output": 3,
    "bn+output": 4,
    "gamma": 5,
    "bn+output+shortcut": 6,
    "none": 7,
    "output+shortcut": 9,
    "beta": 10,
    "all-bn": 11,
    "shortcut": 15,
}
_RANDOM = (8, 14, 20)
_OTHER = [each for each in range(LOOKS) if each not in (*_KNOWN.values(), *_RANDOM)]
_NAME_WIDE, _NAME_NARROW, _NAME_LEGEND = 30, 16, 40  # characters a line, for the name of a subset
_BINS = 81  # odd, so that zero is the middle of a bin and a peak there is not split in two


class Style(NamedTuple):
    """How one subset is drawn: a colour and a matplotlib line style."""

    color: str
    line: str


def styles(trainables: Iterable[str]) -> dict[str, Style]:
    """One look for each subset; up to 24 subsets all look different.

    A look follows from the name alone, so it is the same on every page, but for a rare subset whose
    look another one of the same page has: it takes the next that is free.
    """
    names = sorted(set(trainables))
    looks: dict[str, int] = {}
    for name in names:
        if _home(name) not in looks.values():
            looks[name] = _home(name)
    for name in names:
        if name not in looks:
            # First those that belong to no name: a subset that comes later keeps its own.
            order = sorted(range(LOOKS), key=lambda n: (n not in _OTHER, (n - _home(name)) % LOOKS))
            looks[name] = next((each for each in order if each not in looks.values()), order[0])
    return {name: _style(look) for name, look in looks.items()}


def _home(name: str) -> int:
    """The look that a subset has unless another one of the page has it."""
    if name in _KNOWN:
        return _KNOWN[name]
    if match := re.fullmatch(r"random:(\d+)", name):
        return _RANDOM[int(match[1]) % len(_RANDOM)]
    return _OTHER[hashlib.sha256(name.encode()).digest()[0] % len(_OTHER)]


def _style(look: int) -> Style:
    """The line shifts by one after each round of colours, so that the pairs stay different."""
    rounds, color = divmod(look, len(OKABE_ITO))
    return Style(OKABE_ITO[color], LINES[(look + rounds) % len(LINES)])


def learning_curves(
    curves: Sequence[Curve],
    look: Mapping[str, Style],
    *,
    chance: float | None = None,
    width: float = WIDE,
) -> Figure:
    """Test accuracy over epochs: a line a subset (the mean), a band from lowest to highest seed."""
    with _house_style():
        figure, axes = _figure(width, 3.4)
        _accuracy_axis(axes, chance, vertical=True)
        for curve in curves:
            color, line = look[curve.trainable]
            note = f"n = {curve.n}{'' if curve.finished else ', unfinished'}"
            label = _label(curve.trainable, note)
            lone = "o" if len(curve.epochs) == 1 else ""
            axes.plot(curve.epochs, curve.mean, line, color=color, marker=lone, label=label)
            if curve.n > 1:
                axes.fill_between(
                    curve.epochs, curve.low, curve.high, color=color, alpha=0.2, linewidth=0
                )
        last = max((int(curve.epochs[-1]) for curve in curves), default=1)
        axes.set_xlim((0, 2) if last == 1 else (1, last))
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
        axes.set_xlabel("epoch")
        _title(axes, "test accuracy")
        _legend(figure, width)
        return figure


def accuracy_bars(
    groups: Sequence[GroupRow],
    look: Mapping[str, Style],
    *,
    chance: float | None = None,
    width: float = WIDE,
) -> Figure:
    """Test accuracy by subset, the smallest subset on top; whiskers from lowest to highest seed."""
    shown = [group for group in groups if group.test_accuracy]
    with _house_style():
        folded = _NAME_WIDE if width >= WIDE else _NAME_NARROW
        names = [fold(group.trainable, folded) for group in shown]
        extra = max((name.count("\n") for name in names), default=0)  # lines of the longest name
        figure, axes = _figure(width, 0.8 + (0.55 + 0.17 * extra) * max(1, len(shown)))
        _accuracy_axis(axes, chance, vertical=False)
        for place, (group, name) in enumerate(zip(shown, names, strict=True)):
            reached = group.test_accuracy
            assert reached is not None
            color = look[group.trainable].color
            axes.barh(place, reached.mean, height=0.5, color=color, alpha=0.35, linewidth=0)
            axes.plot([reached.low, reached.high], [place, place], "|-", color=color, ms=13)
            _beside(axes, f"{100 * reached.mean:.1f} %", place, right=True)
            if group.trained is None:
                _beside(axes, name, place)
            else:
                half = 6 * name.count("\n")  # points: what a name of several lines needs beyond one
                _beside(axes, name, place, rise=6)
                values = counted(group.trained, "value")
                _beside(axes, values, place, rise=-7 - half, size=8.5)
        axes.set_yticks([])
        axes.set_ylim(max(1, len(shown)) - 0.5, -0.5)
        axes.spines["bottom"].set_visible(False)
        axes.spines["left"].set_visible(True)
        axes.set_xlabel("test accuracy")
        return figure


def gamma_histogram(
    pools: Sequence[GammaPool], look: Mapping[str, Style], *, width: float = WIDE
) -> Figure:
    """Density of gamma for each subset, all over the same bins, each with an area of 1."""
    with _house_style():
        figure, axes = _figure(width, 3.3)
        edges = histogram_edges([pool.values for pool in pools])
        for pool in pools:
            color, line = look[pool.trainable]
            density, _ = np.histogram(pool.values, bins=edges, density=True)
            axes.stairs(density, edges, fill=True, color=color, alpha=0.16)
            label = _label(pool.trainable, f"n = {pool.n}")
            axes.stairs(density, edges, color=color, linestyle=line, linewidth=1.6, label=label)
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel("gamma after training")
        _title(axes, "density")
        _legend(figure, width)
        return figure


def small_gamma_shares(
    pools: Sequence[GammaPool], look: Mapping[str, Style], *, width: float = WIDE
) -> Figure:
    """Share of gammas with |gamma| < t over t from 0.0001 to 1 (log axis), 0.01 marked."""
    with _house_style():
        figure, axes = _figure(width, 3.3)
        _accuracy_axis(axes, None, vertical=True)
        axes.set_xscale("log")
        thresholds = np.logspace(-4, 0, 161)
        axes.axvline(SMALL, color=INK, linewidth=1)
        for pool in pools:
            color, line = look[pool.trainable]
            shares = [small_share(pool.values, float(each)) for each in thresholds]
            label = _label(pool.trainable, f"n = {pool.n}")
            axes.plot(thresholds, shares, line, color=color, label=label)
        axes.set_xlim(1e-4, 1)
        axes.set_xticks([1e-4, 1e-3, 1e-2, 1e-1, 1], ["0.0001", "0.001", "0.01", "0.1", "1"])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.annotate(
            "switched off",
            (SMALL, 1),
            xycoords=axes.get_xaxis_transform(),
            xytext=(-5, -4),
            textcoords="offset points",
            ha="right",
            va="top",
        )
        axes.set_xlabel("threshold t")
        _title(axes, "share of gammas with |gamma| < t")
        _legend(figure, width)
        return figure


def histogram_edges(values: Sequence[np.ndarray]) -> np.ndarray:
    """Edges of equal bins that hold all `values`, zero in the middle of one of them."""
    low = min((float(each.min()) for each in values if each.size), default=0.0)
    high = max((float(each.max()) for each in values if each.size), default=0.0)
    step = (high - low) / (_BINS - 2) or 0.1
    first, last = math.floor(low / step + 0.5), math.floor(high / step + 0.5)
    return (np.arange(first, last + 2) - 0.5) * step


def svg_text(figure: Figure) -> str:
    """The figure as a stand-alone SVG file: text is text, no date, transparent background."""
    with _house_style(), io.StringIO() as file:
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        return file.getvalue()


def inline_svg(figure: Figure, prefix: str, label: str) -> str:
    """The figure as an <svg> element for an HTML page.

    prefix: makes every id its own, as matplotlib uses the same ones in each figure. label: what a
    screen reader says. Axes and text take the page's --figure-ink and --figure-grid colours.
    """
    text = svg_text(figure)
    text = text[text.index("<svg") :].strip()
    # The page has no use for the RDF, and <style> would apply to all of it.
    text = re.sub(r"<(metadata|style)\b.*?</\1>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'xlink:href="#', f'href="#{prefix}-', text)
    text = text.replace("url(#", f"url(#{prefix}-")
    text = text.replace(INK, f"var(--figure-ink, {INK})")
    text = text.replace(GRID, f"var(--figure-grid, {GRID})")
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None
    # HTML needs no name spaces, and width and height are the page's affair.
    head = f'<svg {box.group()} role="img" aria-label="{escape(label)}">'
    return head + text[text.index(">") + 1 :]


@contextlib.contextmanager
def _house_style() -> Iterator[None]:
    """matplotlib's own defaults under ours, so that a reader's matplotlibrc changes no page."""
    ours = {
        "svg.fonttype": "none",
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


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="both", length=3, width=0.8)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _accuracy_axis(axes: Axes, chance: float | None, *, vertical: bool) -> None:
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


def _label(trainable: str, note: str) -> str:
    return f"{fold(trainable, _NAME_LEGEND)} ({note})"


def _title(axes: Axes, text: str) -> None:
    """What the vertical axis shows, written above it: easier to read than along it."""
    axes.set_title(text, loc="left", fontsize=10, pad=8)


def _beside(
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


def _legend(figure: Figure, width: float) -> None:
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
