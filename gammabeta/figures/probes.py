"""The figures of what was measured on finished runs: clamping, and a share layer by layer."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gammabeta.figures.house import (
    NARROW,
    WIDE,
    accuracy_axis,
    house_style,
    label_of,
    legend_above,
    new_figure,
    title_above,
)
from gammabeta.figures.looks import Style
from gammabeta.figures.measured import Array
from gammabeta.probe.read import ClampCurve


def clamp_figure(
    curves: Mapping[str, Sequence[ClampCurve]], look: Mapping[str, Style], *,
    chance: float | None = None, width: float = WIDE,
) -> Figure:  # fmt: skip
    """Test accuracy over the threshold below which gammas are set to zero: a line a subset, and a
    thin one for as many random gammas; bands from the lowest to the highest run and draw."""
    with house_style():
        figure, axes = new_figure(width, 3.6)
        accuracy_axis(axes, chance, vertical=True)
        ticks: list[str] = []
        for trainable, runs in curves.items():
            color, line = look[trainable]
            ticks = [f"{each:g}" for each in runs[0].thresholds]
            places = np.arange(len(ticks))
            small = np.array([run.accuracy for run in runs])  # (runs, T)
            random = np.concatenate([run.random for run in runs])  # (runs x draws, T)
            note = f"n = {len(runs)}"
            for values, kind, shape, thick in (
                (small, "small gammas", "o", 1.8), (random, "as many random ones", "x", 1.0),
            ):  # fmt: skip
                label = label_of(f"{trainable}, {kind}", note)
                axes.plot(places, values.mean(0), line, color=color, linewidth=thick,
                          marker=shape, markersize=4.5, label=label)  # fmt: skip
                if len(values) > 1:
                    axes.fill_between(places, values.min(0), values.max(0), color=color, alpha=0.15,
                                      linewidth=0)  # fmt: skip
        every = 1 if width > NARROW else 2
        axes.set_xticks(range(0, len(ticks), every), ticks[::every])
        axes.set_xlabel("threshold t: gammas with |gamma| < t are set to zero")
        title_above(axes, "test accuracy")
        legend_above(figure, width)
        return figure


def layer_figure(
    shares: Mapping[str, Array], look: Mapping[str, Style], *, title: str, axis: str,
    width: float = WIDE,
) -> Figure:  # fmt: skip
    """A share by layer, in the order of the network: the mean over runs, a band from the lowest to
    the highest. shares: subset -> (runs, layers)."""
    with house_style():
        figure, axes = new_figure(width, 3.3)
        accuracy_axis(axes, None, vertical=True)
        for trainable, values in shares.items():
            color, line = look[trainable]
            places = np.arange(1, values.shape[1] + 1)
            few = values.shape[1] <= 60  # points of a deep network would hide its line
            axes.plot(
                places, values.mean(0), line, color=color, linewidth=1.6,
                marker=look[trainable].marker if few else "", markersize=4,
                label=label_of(trainable, f"n = {len(values)}"),
            )  # fmt: skip
            if len(values) > 1:
                axes.fill_between(places, values.min(0), values.max(0), color=color, alpha=0.2,
                                  linewidth=0)  # fmt: skip
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
        axes.set_xlabel(axis)
        title_above(axes, title)
        legend_above(figure, width)
        return figure
