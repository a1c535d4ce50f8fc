"""What was measured on the runs of a point: gammas and betas, clamp curves, ReLU activity.

Read from the probes beside the runs, gammas also from the last checkpoint where there is no probe.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from gammabeta.curves import GammaPool, gammas
from gammabeta.gammas import SMALL, small_share
from gammabeta.paper.points import Point, View
from gammabeta.probe.read import ClampCurve, clamp_curve, layer_values, relu_activity
from gammabeta.store import RunFolder

Array = np.ndarray[Any, np.dtype[Any]]


class Clamped(NamedTuple):
    """At the threshold 0.01, means over n runs, in 0..1: the share of gammas that is clamped, and
    the accuracy as trained, without them, and without as many random ones. images: tested."""

    share: float
    before: float
    after: float
    random: float
    images: int
    n: int


class Quiet(NamedTuple):
    """Means over n runs, in 0..1: shares of the features that are off on more than 99 % of their
    inputs, and on all of them."""

    mostly_off: float
    dead: float
    n: int


def values_of(run: RunFolder, kind: str = "gamma") -> dict[str, Array] | None:
    """The gammas or betas by layer, each (C,); None where they are not known."""
    found = layer_values(run, kind)
    return found or (gammas(run) if kind == "gamma" else None)


def pools_by_network(view: View, kind: str = "gamma") -> dict[str, list[GammaPool]]:
    """The gammas or betas of finished runs by network, a pool a subset; only networks with one."""
    found: dict[str, list[GammaPool]] = {}
    for point in view.done:
        known = [each for run in point.runs if (each := values_of(run, kind))]
        if known:
            values = np.concatenate([each for run in known for each in run.values()])
            pool = GammaPool(point.spec.trainable, len(known), values)
            found.setdefault(point.spec.model, []).append(pool)
    return found


def small_by_layer(point: Point) -> Array | None:
    """The share of small gammas of each layer, (runs, layers), in the order of the network."""
    known = [each for run in point.runs if (each := values_of(run))]
    return stacked([small_share(layer) for layer in each.values()] for each in known)


def off_by_layer(point: Point) -> Array | None:
    """The share of features of each ReLU that are mostly off, (runs, ReLUs), in their order."""
    known = [each for run in point.runs if (each := relu_activity(run))]
    return stacked([layer.mostly_off / len(layer.off) for layer in each] for each in known)


def stacked(rows: Iterable[list[float]]) -> Array | None:
    """Rows of one length as an array; those of another length than the first are left out."""
    kept = list(rows)
    kept = [row for row in kept if len(row) == len(kept[0])]
    return np.array(kept) if kept else None


def clamp_curves(point: Point) -> list[ClampCurve]:
    """Those of the finished runs, all at the thresholds of the first."""
    found = [each for run in point.runs if (each := clamp_curve(run))]
    return [each for each in found if np.array_equal(each.thresholds, found[0].thresholds)]


def clamped(point: Point) -> Clamped | None:
    """The clamp curves of a point at 0 and at 0.01; None where there is none."""
    found = clamp_curves(point)
    if not found or not {0.0, SMALL} <= set(found[0].thresholds.tolist()):
        return None
    at = {float(each): place for place, each in enumerate(found[0].thresholds)}
    return Clamped(
        share=_mean(each.shares[at[SMALL]] for each in found),
        before=_mean(each.accuracy[at[0.0]] for each in found),
        after=_mean(each.accuracy[at[SMALL]] for each in found),
        random=_mean(each.random[:, at[SMALL]].mean() for each in found),
        images=found[0].images,
        n=len(found),
    )


def quiet(point: Point) -> Quiet | None:
    """How many features of a point's networks are off; None where it was not measured."""
    known = [each for run in point.runs if (each := relu_activity(run))]
    if not known:
        return None
    features = [sum(len(layer.off) for layer in each) for each in known]
    off = [sum(layer.mostly_off for layer in each) for each in known]
    dead = [sum(layer.dead for layer in each) for each in known]
    return Quiet(
        mostly_off=_mean(one / all for one, all in zip(off, features, strict=True)),
        dead=_mean(one / all for one, all in zip(dead, features, strict=True)),
        n=len(known),
    )


def images_seen(view: View) -> list[int]:
    """On how many test images the probes of a view were made, each number once, from the lowest;
    empty where its probe needs none."""
    seen = set()
    for name in view.experiment.probes:
        for run in view.runs:
            found = run.probe(name) or {}
            seen.add(int(found.get("made_from", {}).get("images", 0)))
    return sorted(seen - {0})


def by_network(points: Iterable[Point]) -> Mapping[str, list[Point]]:
    """Points by network, in the order of the experiment."""
    found: dict[str, list[Point]] = {}
    for point in points:
        found.setdefault(point.spec.model, []).append(point)
    return found


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
