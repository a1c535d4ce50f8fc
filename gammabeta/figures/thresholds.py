"""Which figures the experiments on finished runs have: `gammas`, `clamp` and `activity`."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.figure import Figure

from gammabeta.curves import GammaPool
from gammabeta.figures.gammas import gamma_histogram, small_gamma_shares
from gammabeta.figures.looks import Style, styles
from gammabeta.figures.measured import (
    Array,
    by_network,
    clamp_curves,
    off_by_layer,
    pools_by_network,
    small_by_layer,
)
from gammabeta.figures.probes import clamp_figure, layer_figure
from gammabeta.names import readable
from gammabeta.paper.points import Point, View

Draw = Callable[[float], Figure]
_LAYERS = "layer, in the order of the network"


def threshold_drawings(view: View, chance: float | None) -> list[tuple[str, str, Draw]]:
    """(key, title, draw) of each figure, for the smallest and the largest network measured. The key
    of the first network's figures does not name it."""
    make = {"gammas": _gammas, "clamp": _clamp, "activity": _activity}.get(view.experiment.name)
    if make is None:
        return []
    found = {model: made for model in by_network(view.done) if (made := make(view, model, chance))}
    ends = dict.fromkeys([*list(found)[:1], *list(found)[-1:]])
    return [
        (key if number == 0 else f"{model}-{key}".rstrip("-"), f"{title}, {readable(model)}", draw)
        for number, model in enumerate(ends)
        for key, title, draw in found[model]
    ]


def _gammas(view: View, model: str, chance: float | None) -> list[tuple[str, str, Draw]]:
    found: list[tuple[str, str, Draw]] = []
    gammas, betas = (pools_by_network(view, kind).get(model, []) for kind in ("gamma", "beta"))
    look = styles(pool.trainable for pool in [*gammas, *betas])
    if gammas:
        found += [
            (key, title, functools.partial(_of_pools, make, gammas, look))
            for key, title, make in (
                ("", "Gamma after training", gamma_histogram),
                ("small", "Small gammas", small_gamma_shares),
            )
        ]
        title = "share of gammas with |gamma| < 0.01"
        layers = _by_layer(by_network(view.done)[model], small_by_layer)
        draw = functools.partial(_of_layers, layers, look, title)
        found.append(("layers", "Small gammas by layer", draw))
    if betas:
        histogram = functools.partial(gamma_histogram, name="beta")
        draw = functools.partial(_of_pools, histogram, betas, look)
        found.append(("beta", "Beta after training", draw))
    return found


def _clamp(view: View, model: str, chance: float | None) -> list[tuple[str, str, Draw]]:
    points = by_network(view.done)[model]
    curves = {p.spec.trainable: each for p in points if (each := clamp_curves(p))}
    if not curves:
        return []
    look = styles(curves)

    def draw(width: float) -> Figure:
        return clamp_figure(curves, look, chance=chance, width=width)

    return [("", "Accuracy without small gammas", draw)]


def _activity(view: View, model: str, chance: float | None) -> list[tuple[str, str, Draw]]:
    layers = _by_layer(by_network(view.done)[model], off_by_layer)
    if not layers:
        return []
    title = "share of features off on more than 99 % of their inputs"
    draw = functools.partial(_of_layers, layers, styles(layers), title)
    return [("", "Features that are off, by layer", draw)]


def _by_layer(
    points: Sequence[Point], measure: Callable[[Point], Array | None]
) -> dict[str, Array]:
    found = {point.spec.trainable: measure(point) for point in points}
    return {trainable: values for trainable, values in found.items() if values is not None}


def _of_pools(
    draw: Callable[..., Figure], pools: Sequence[GammaPool], look: dict[str, Style], width: float
) -> Figure:
    return draw(pools, look, width=width)


def _of_layers(
    layers: dict[str, Any], look: dict[str, Style], title: str, width: float
) -> Figure:  # fmt: skip
    return layer_figure(layers, look, title=title, axis=_LAYERS, width=width)
