"""The figures of whole distributions: quantile bands layer by layer, and a histogram of how often
features are off."""

from collections.abc import Mapping

import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator

from gammabeta.figures.chart import Chart, Series
from gammabeta.figures.house import (
    INK,
    NARROW,
    WIDE,
    house_style,
    label_of,
    layer_axis,
    legend_above,
    new_figure,
    new_panels,
    title_above,
)
from gammabeta.figures.looks import Style
from gammabeta.figures.measured import Array, Bands, OffShares

_OFF_BINS = 20  # of 5 % each


def band_figure(
    bands: Mapping[str, Bands], look: Mapping[str, Style], *, name: str, axis: str,
    width: float = WIDE,
) -> Chart:  # fmt: skip
    """The distribution of gamma or beta (`name`) over the layers, a panel a subset on one scale:
    the median, a dark band from the 25th to the 75th percentile, a light one from the 5th to the
    95th. The points of neighbouring layers are joined for the eye alone."""
    with house_style():
        figure, panels = new_panels(width, 2.9 if width > NARROW else 2.3, len(bands))
        for axes, (trainable, (values, n)) in zip(panels, bands.items(), strict=True):
            color, line = look[trainable]
            places = np.arange(1, values.shape[1] + 1)
            lowest, low, middle, high, highest = values
            axes.axhline(0, color=INK, linewidth=0.8)
            quartiles = {"quantile_25": low, "quantile_75": high}
            axes.fill_between(places, low, high, color=color, alpha=0.4, linewidth=0)
            few = values.shape[1] <= 60  # points of a deep network would hide its line
            # low and high are the 5th and 95th percentile
            told = Series(trainable, places, middle, lowest, highest, n, more=quartiles)
            figure.curve(axes, told, color=color, band=0.18, linestyle=line, linewidth=1.6,
                         markersize=4, marker=look[trainable].marker if few else "")  # fmt: skip
            title_above(axes, f"{name}, {label_of(trainable, f'n = {n}')}")
            layer_axis(axes, max(each.shape[1] for each, _ in bands.values()))
            axes.yaxis.set_major_locator(MaxNLocator(6))
            if axes is panels[0]:
                axes.plot([], [], color=INK, label="median")
                for alpha, part in ((0.5, "25 to 75 %"), (0.2, "5 to 95 %")):
                    axes.fill_between([], [], [], color=INK, alpha=alpha, linewidth=0, label=part)
            if axes.get_subplotspec().is_last_row():  # type: ignore[union-attr]
                axes.set_xlabel(axis)
        figure.about["y"] = f"{name}: median, low and high: 5 and 95 %"
        legend_above(figure, width)
        return figure


def off_histogram(
    shares: Mapping[str, OffShares], look: Mapping[str, Style], *, width: float = WIDE
) -> Chart:
    """Which share of the features is off on how many of its inputs, in bins of 5 %."""
    with house_style():
        figure, axes = new_figure(width, 3.3)
        edges = np.linspace(0, 1, _OFF_BINS + 1)
        for trainable, (values, n) in shares.items():
            color, line = look[trainable]
            label = label_of(trainable, f"n = {n}")
            told = Series(trainable, edges, off_parts(values), n=n)
            figure.steps(axes, told, color=color, line=line, label=label)
        percents = FuncFormatter(lambda value, _: f"{100 * value:.0f} %")
        axes.set_xlim(0, 1)
        axes.set_xticks(np.linspace(0, 1, 6))
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_formatter(percents)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(percents)
        axes.set_xlabel("share of its inputs for which a feature is off")
        title_above(axes, "share of features")
        legend_above(figure, width)
        return figure


def off_parts(shares: Array, bins: int = _OFF_BINS) -> Array:
    """The part of the features in each bin, (bins,), from their off-shares in 0..1. A bin holds its
    lower edge; the last one its upper edge too, where the dead features are."""
    # 3/20 times 20 may be just below 3; no share comes as near to an edge without being it, as
    # that would take more than 1e8 inputs a bin.
    places = np.floor(np.asarray(shares) * bins + 1e-9).astype(int)
    counts = np.bincount(np.clip(places, 0, bins - 1), minlength=bins)
    return np.asarray(counts / max(1, len(shares)))
