"""The figures of what was measured on finished runs: clamping, and a share layer by layer."""

from collections.abc import Mapping, Sequence

import numpy as np

from gammabeta.analysis import counted
from gammabeta.figures.chart import Chart, Series
from gammabeta.figures.house import (
    NARROW,
    WIDE,
    accuracy_axis,
    house_style,
    label_of,
    layer_axis,
    legend_above,
    new_figure,
    share_axis,
    title_above,
)
from gammabeta.figures.looks import Style
from gammabeta.figures.measured import Array
from gammabeta.probe.read import ClampCurve


def clamp_figure(
    curves: Mapping[str, Sequence[ClampCurve]], look: Mapping[str, Style], *,
    chance: float | None = None, width: float = WIDE,
) -> Chart:  # fmt: skip
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
            share = np.mean([run.shares for run in runs], axis=0)
            draws = len(runs[0].random)
            drawn = f"{note}, {counted(draws, 'draw')}{' each' * (len(runs) > 1)}"
            for values, kind, shape, thick, said, more in (
                (small, "small gammas", "o", 1.8, note, {"share": share}),
                (random, "as many random ones", "x", 1.0, drawn, {"share": share, "draws": draws}),
            ):
                told = _over(f"{trainable}, {kind}", places, values, len(runs), more)
                label = label_of(f"{trainable}, {kind}", said)
                figure.curve(axes, told, color=color, band=0.15, linestyle=line, linewidth=thick,
                             marker=shape, markersize=4.5, label=label)  # fmt: skip
        figure.about["names"] = ticks
        every = 1 if width > NARROW else 2
        axes.set_xticks(range(0, len(ticks), every), ticks[::every])
        axes.set_xlabel("threshold t: gammas with |gamma| < t are set to zero")
        title_above(axes, "test accuracy")
        legend_above(figure, width)
        return figure


def layer_figure(
    shares: Mapping[str, Array], look: Mapping[str, Style], *, title: str, axis: str,
    width: float = WIDE,
) -> Chart:  # fmt: skip
    """A share by layer, in the order of the network: the mean over runs, a band from the lowest to
    the highest. shares: subset -> (runs, layers)."""
    with house_style():
        figure, axes = new_figure(width, 3.3)
        share_axis(axes, max(float(values.max()) for values in shares.values()))
        for trainable, values in shares.items():
            color, line = look[trainable]
            places = np.arange(1, values.shape[1] + 1)
            few = values.shape[1] <= 60  # points of a deep network would hide its line
            figure.curve(
                axes, _over(trainable, places, values, len(values)), color=color, band=0.2,
                linestyle=line, linewidth=1.6, marker=look[trainable].marker if few else "",
                markersize=4, label=label_of(trainable, f"n = {len(values)}"),
            )  # fmt: skip
        layer_axis(axes, max(values.shape[1] for values in shares.values()))
        axes.set_xlabel(axis)
        title_above(axes, title)
        legend_above(figure, width)
        return figure


def _over(
    label: str,
    places: Array,
    values: Array,
    n: int,
    more: Mapping[str, Array | float] | None = None,
) -> Series:
    """The mean of the rows of values, (rows, places), from the lowest to the highest of them."""
    low, high = (values.min(0), values.max(0)) if len(values) > 1 else (None, None)
    return Series(label, places, values.mean(0), low, high, n, more=more or {})
