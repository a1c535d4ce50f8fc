"""The figures of runs that differ in their subset only: learning curves, and where each ends."""

from collections.abc import Mapping, Sequence

from matplotlib.ticker import MaxNLocator

from gammabeta.analysis import GroupRow, counted, in_percent
from gammabeta.curves import Curve
from gammabeta.figures.chart import Chart, Series
from gammabeta.figures.house import (
    NAME_NARROW,
    NAME_WIDE,
    NARROW,
    PUBLISHED,
    WIDE,
    accuracy_axis,
    beside,
    fold,
    house_style,
    label_of,
    legend_above,
    name_ends,
    new_figure,
    title_above,
)
from gammabeta.figures.looks import Style, dashes


def learning_curves(
    curves: Sequence[Curve],
    look: Mapping[str, Style],
    *,
    chance: float | None = None,
    width: float = WIDE,
    published: Mapping[str, Mapping[int, float]] | None = None,
) -> Chart:
    """Test accuracy over epochs: a line a subset (the mean), a band from lowest to highest seed.

    look: of the published subsets too. published: subset -> {epoch: accuracy}, thin and grey, each
    in the dashes of its subset and with its name at its end; on a phone, where a name has no room,
    only those that stand beside a line of ours.
    """
    with house_style():
        figure, axes = new_figure(width, 3.4)
        accuracy_axis(axes, chance, vertical=True)
        for curve in curves:
            color, line = look[curve.trainable]
            note = f"n = {curve.n}{'' if curve.finished else ', unfinished'}"
            label = label_of(curve.trainable, note)
            lone = "o" if len(curve.epochs) == 1 else ""
            several = curve.n > 1
            told = Series(curve.trainable, curve.epochs, curve.mean, curve.low if several else None,
                          curve.high if several else None, curve.n)  # fmt: skip
            figure.curve(axes, told, color=color, band=0.2, linestyle=line, marker=lone,
                         label=label)  # fmt: skip
        ours = {curve.trainable for curve in curves}
        grey = {
            name: points
            for name, points in (published or {}).items()
            if width > NARROW or name in ours
        }
        lines = dashes({name: look[name] for name in grey})
        for name, points in grey.items():
            told = Series(name, [*points], [*points.values()], published=True)
            figure.curve(axes, told, color=PUBLISHED, linestyle=lines[name], linewidth=1)
        if grey:
            axes.plot([], [], color=PUBLISHED, lw=1, label="published")
        last = max((int(curve.epochs[-1]) for curve in curves), default=1)
        last = max([last, *(epoch for points in grey.values() for epoch in points)])
        if width > NARROW:
            ends = {name: (last, list(points.values())[-1]) for name, points in grey.items()}
            if ends:
                name_ends(axes, ends)
        axes.set_xlim((0, 2) if last == 1 else (1, last))
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
        axes.set_xlabel("epoch")
        title_above(axes, "test accuracy")
        legend_above(figure, width)
        return figure


def accuracy_bars(
    groups: Sequence[GroupRow],
    look: Mapping[str, Style],
    *,
    chance: float | None = None,
    width: float = WIDE,
) -> Chart:
    """Test accuracy by subset, the smallest subset on top; whiskers from lowest to highest seed."""
    shown = [group for group in groups if group.test_accuracy]
    with house_style():
        folded = NAME_WIDE if width >= WIDE else NAME_NARROW
        names = [fold(group.trainable, folded) for group in shown]
        extra = max((name.count("\n") for name in names), default=0)  # lines of the longest name
        figure, axes = new_figure(width, 0.8 + (0.55 + 0.17 * extra) * max(1, len(shown)))
        accuracy_axis(axes, chance, vertical=False)
        for place, (group, name) in enumerate(zip(shown, names, strict=True)):
            reached = group.test_accuracy
            assert reached is not None
            color = look[group.trainable].color
            axes.barh(place, reached.mean, height=0.5, color=color, alpha=0.35, linewidth=0)
            axes.plot([reached.low, reached.high], [place, place], "|-", color=color, ms=13)
            beside(axes, f"{in_percent(reached.mean)} %", place, right=True)
            if group.trained is None:
                beside(axes, name, place)
            else:
                half = 6 * name.count("\n")  # points: what a name of several lines needs beyond one
                beside(axes, name, place, rise=6)
                values = counted(group.trained, "value")
                beside(axes, values, place, rise=-7 - half, size=8.5)
        axes.set_yticks([])
        axes.set_ylim(max(1, len(shown)) - 0.5, -0.5)
        axes.spines["bottom"].set_visible(False)
        axes.spines["left"].set_visible(True)
        axes.set_xlabel("test accuracy")
        return figure
