"""Which figures the experiments on finished runs have: `gammas`, `clamp` and `activity`."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from gammabeta.analysis import Spread
from gammabeta.curves import GammaPool
from gammabeta.figures.chart import Chart
from gammabeta.figures.distributions import band_figure, off_histogram
from gammabeta.figures.gammas import gamma_histogram, small_gamma_shares
from gammabeta.figures.lines import Line, over_names
from gammabeta.figures.looks import Style, styles
from gammabeta.figures.measured import (
    Array,
    by_network,
    clamp_curves,
    feature_shares,
    off_by_layer,
    off_shares,
    pools_by_network,
    quantile_bands,
    small_by_layer,
    small_shares,
)
from gammabeta.figures.probes import clamp_figure, layer_figure
from gammabeta.figures.series import network_ticks
from gammabeta.names import readable
from gammabeta.paper.points import Point, View

Draw = Callable[[float], Chart]
_LAYERS = "layer, in the order of the network"
_SMALL = "share of gammas with |gamma| < 0.01"
_OFF = "share of features off on more than 99 % of their inputs"


def threshold_drawings(view: View, chance: float | None) -> list[tuple[str, str, Draw]]:
    """(key, title, draw) of each figure, for the smallest and the largest network measured. The key
    of the first network's figures does not name it. Of `gammas` and `activity` one more, "depth",
    over all networks where there are two."""
    make = {"gammas": _gammas, "clamp": _clamp, "activity": _activity}.get(view.experiment.name)
    if make is None:
        return []
    found = {model: made for model in by_network(view.done) if (made := make(view, model, chance))}
    ends = dict.fromkeys([*list(found)[:1], *list(found)[-1:]])
    told = [
        (key if number == 0 else f"{model}-{key}".rstrip("-"), f"{title}, {readable(model)}", draw)
        for number, model in enumerate(ends)
        for key, title, draw in found[model]
    ]
    return told + _over_depth(view)


def _over_depth(view: View) -> list[tuple[str, str, Draw]]:
    """A share of the whole network, over networks."""
    name = view.experiment.name
    if name not in ("gammas", "activity"):
        return []
    measure, title = (small_shares, _SMALL) if name == "gammas" else (feature_shares, _OFF)
    found: dict[str, dict[str, Spread]] = {}
    for point in view.done:
        if (value := measure(point)) is not None:
            found.setdefault(point.spec.trainable, {})[point.spec.model] = value
    models = [each for each in by_network(view.done) if any(each in row for row in found.values())]
    if len(models) < 2:
        return []
    look, (ticks, axis) = styles(found), network_ticks(models)
    nothing, places = (None,) * len(models), tuple(map(float, range(len(models))))
    lines = [
        Line(subset, look[subset], places, tuple(map(row.get, models)), nothing)
        for subset, row in found.items()
    ]

    def draw(width: float) -> Chart:
        return over_names(lines, ticks, axis, title=title, width=width, is_accuracy=False)

    kind = "Small gammas" if name == "gammas" else "Features that are off"
    return [("depth", f"{kind}, network by network", draw)]


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
        layers = _by_layer(by_network(view.done)[model], small_by_layer)
        draw = functools.partial(_of_layers, layers, look, _SMALL)
        found.append(("layers", "Small gammas by layer", draw))
        found.append(("bands", "Gamma by layer", _bands(view, model, "gamma", look)))
    if betas:
        histogram = functools.partial(gamma_histogram, name="beta")
        draw = functools.partial(_of_pools, histogram, betas, look)
        found.append(("beta", "Beta after training", draw))
        found.append(("beta-bands", "Beta by layer", _bands(view, model, "beta", look)))
    return found


def _bands(view: View, model: str, kind: str, look: dict[str, Style]) -> Draw:
    points = by_network(view.done)[model]
    bands = {p.spec.trainable: each for p in points if (each := quantile_bands(p, kind))}
    return functools.partial(_of_bands, bands, look, kind)


def _clamp(view: View, model: str, chance: float | None) -> list[tuple[str, str, Draw]]:
    points = by_network(view.done)[model]
    curves = {p.spec.trainable: each for p in points if (each := clamp_curves(p))}
    if not curves:
        return []
    look = styles(curves)

    def draw(width: float) -> Chart:
        return clamp_figure(curves, look, chance=chance, width=width)

    return [("", "Accuracy without small gammas", draw)]


def _activity(view: View, model: str, chance: float | None) -> list[tuple[str, str, Draw]]:
    layers = _by_layer(by_network(view.done)[model], off_by_layer)
    if not layers:
        return []
    look = styles(layers)
    points = by_network(view.done)[model]
    shares = {p.spec.trainable: each for p in points if (each := off_shares(p))}

    def histogram(width: float) -> Chart:
        return off_histogram(shares, look, width=width)

    draw = functools.partial(_of_layers, layers, look, _OFF)
    return [
        ("", "Features that are off, by layer", draw),
        ("histogram", "How often features are off", histogram),
    ]


def _by_layer(
    points: Sequence[Point], measure: Callable[[Point], Array | None]
) -> dict[str, Array]:
    found = {point.spec.trainable: measure(point) for point in points}
    return {trainable: values for trainable, values in found.items() if values is not None}


def _of_pools(
    draw: Callable[..., Chart], pools: Sequence[GammaPool], look: dict[str, Style], width: float
) -> Chart:
    return draw(pools, look, width=width)


def _of_bands(bands: dict[str, Any], look: dict[str, Style], name: str, width: float) -> Chart:
    return band_figure(bands, look, name=name, axis=_LAYERS, width=width)


def _of_layers(
    layers: dict[str, Any], look: dict[str, Style], title: str, width: float
) -> Chart:  # fmt: skip
    return layer_figure(layers, look, title=title, axis=_LAYERS, width=width)
