"""The figures of gamma: its distribution, and the share below a threshold."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator, NullLocator

from gammabeta.curves import GammaPool
from gammabeta.figures.chart import Chart, Series
from gammabeta.figures.house import (
    INK,
    WIDE,
    accuracy_axis,
    house_style,
    label_of,
    legend_above,
    new_figure,
    title_above,
)
from gammabeta.figures.looks import Style
from gammabeta.gammas import small_share
from gammabeta.small import SMALL

_BINS = 81  # odd, so that zero is the middle of a bin and a peak there is not split in two


def gamma_histogram(
    pools: Sequence[GammaPool], look: Mapping[str, Style], *, width: float = WIDE,
    name: str = "gamma",
) -> Chart:  # fmt: skip
    """Density of gamma for each subset, all over the same bins, each with an area of 1. name: what
    the values are."""
    with house_style():
        figure, axes = new_figure(width, 3.3)
        edges = histogram_edges([pool.values for pool in pools])
        for pool in pools:
            color, line = look[pool.trainable]
            density, _ = np.histogram(pool.values, bins=edges, density=True)
            label = label_of(pool.trainable, f"n = {pool.n}")
            told = Series(pool.trainable, edges, density, n=pool.n)
            figure.steps(axes, told, color=color, line=line, label=label)
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel(f"{name} after training")
        title_above(axes, "density")
        legend_above(figure, width)
        return figure


def small_gamma_shares(
    pools: Sequence[GammaPool], look: Mapping[str, Style], *, width: float = WIDE
) -> Chart:
    """Share of gammas with |gamma| < t over t from 0.0001 to 1 (log axis), 0.01 marked."""
    with house_style():
        figure, axes = new_figure(width, 3.3)
        accuracy_axis(axes, None, vertical=True)
        axes.set_xscale("log")
        thresholds = np.logspace(-4, 0, 161)
        axes.axvline(SMALL, color=INK, linewidth=1)
        for pool in pools:
            color, line = look[pool.trainable]
            shares = [small_share(pool.values, float(each)) for each in thresholds]
            label = label_of(pool.trainable, f"n = {pool.n}")
            told = Series(pool.trainable, thresholds, shares, n=pool.n)
            figure.curve(axes, told, color=color, linestyle=line, label=label)
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
        title_above(axes, "share of gammas with |gamma| < t")
        legend_above(figure, width)
        return figure


def histogram_edges(values: Sequence[np.ndarray]) -> np.ndarray:
    """Edges of equal bins that hold all `values`, zero in the middle of one of them."""
    low = min((float(each.min()) for each in values if each.size), default=0.0)
    high = max((float(each.max()) for each in values if each.size), default=0.0)
    step = (high - low) / (_BINS - 2) or 0.1
    first, last = math.floor(low / step + 0.5), math.floor(high / step + 0.5)
    return (np.arange(first, last + 2) - 0.5) * step
