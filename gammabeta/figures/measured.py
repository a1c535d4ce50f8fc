"""What was measured on the runs of a point: gammas and betas, clamp curves, ReLU activity.

Read from the probes beside the runs, gammas and betas also from the last checkpoint where there is
no probe of the finished run that can be read. Probes of one point that saw different numbers of
test images are never in one mean.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from gammabeta.analysis import Spread, spread
from gammabeta.curves import GammaPool, gammas
from gammabeta.gammas import small_share
from gammabeta.paper.points import Point, View
from gammabeta.probe.gammas import QUANTILES
from gammabeta.probe.read import (
    ClampCurve,
    clamp_curve,
    images_seen,
    layer_values,
    relu_activity,
    trouble,
)
from gammabeta.small import SMALL
from gammabeta.store import RunFolder

Array = np.ndarray[Any, np.dtype[Any]]


class Clamped(NamedTuple):
    """At the threshold 0.01, means over n runs, in 0..1: the share of gammas that is clamped, and
    the accuracy as trained, without them, and without as many random ones. images: tested.
    recorded: what the runs themselves recorded of these images; None where one did not."""

    share: float
    before: float
    after: float
    random: float
    images: int
    n: int
    recorded: float | None


class Quiet(NamedTuple):
    """Means over n runs, in 0..1: shares of the features that are off on more than 99 % of their
    inputs, and on all of them. images: tested."""

    mostly_off: float
    dead: float
    images: int
    n: int


class Bands(NamedTuple):
    """values: the QUANTILES of the gammas or betas of each layer, those of n runs together, (5,
    layers), in the order of the network; a quantile between two values lies on the line between
    them (numpy's default)."""

    values: Array
    n: int


class OffShares(NamedTuple):
    """values: of each feature of each ReLU of n runs, on which share of its inputs it is off, in
    0..1, each feature counted once, (n x features)."""

    values: Array
    n: int


class Probed(NamedTuple):
    """runs: those finished runs of a point whose probe saw the most test images, `images` of them.
    left: how many runs saw another number, by that number; they are in no mean with the others."""

    runs: list[RunFolder]
    images: int
    left: dict[int, int]


def values_of(run: RunFolder, kind: str = "gamma") -> dict[str, Array] | None:
    """The gammas or betas by layer, each (C,); None where they are not known."""
    return layer_values(run, kind) or gammas(run, kind)


def probed(point: Point, probe: str) -> Probed:
    """The runs of a point whose probe was made on as many images."""
    seen = {}
    for run in point.runs:
        if (images := images_seen(run, probe)) is not None:
            seen[run] = images
    most = max(seen.values(), default=0)
    left = Counter(each for each in seen.values() if each != most)
    return Probed([run for run, each in seen.items() if each == most], most, dict(left))


def not_read(view: View) -> list[str]:
    """The probes of finished runs that are there and not read: stale, or damaged; a line each."""
    found = (trouble(run, probe) for probe in view.experiment.probes for run in view.runs)
    return list(dict.fromkeys(line for line in found if line is not None))


def not_measured(view: View) -> list[str]:
    """The finished runs of a view that have no file of one of its probes, a line a probe. Gammas
    that the last checkpoint tells are known without."""
    said = []
    for probe in view.experiment.probes:
        runs = {
            run.id: None
            for run in view.runs
            if not (run.path / "probe" / f"{probe}.json").exists()
            and (probe != "gammas" or values_of(run) is None)
        }
        if runs:
            said.append(f"Not measured yet: {probe} of {', '.join(runs)} (gammabeta analyze ID).")
    return said


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


def quantile_bands(point: Point, kind: str = "gamma") -> Bands | None:
    """The distribution of each layer's gammas or betas; runs with other layers than the first are
    left out."""
    known = [each for run in point.runs if (each := values_of(run, kind))]
    known = [each for each in known if list(each) == list(known[0])]
    if not known:
        return None
    together = (np.concatenate([each[layer] for each in known]) for layer in known[0])
    return Bands(np.array([np.quantile(each, QUANTILES) for each in together]).T, len(known))


def small_by_layer(point: Point) -> Array | None:
    """The share of small gammas of each layer, (runs, layers), in the order of the network."""
    known = [each for run in point.runs if (each := values_of(run))]
    return stacked([small_share(layer) for layer in each.values()] for each in known)


def small_shares(point: Point) -> Spread | None:
    """The share of small gammas of the whole network, over the finished runs."""
    known = [each for run in point.runs if (each := values_of(run))]
    return spread(small_share(each) for each in known)


def off_by_layer(point: Point) -> Array | None:
    """The share of features of each ReLU that are mostly off, (runs, ReLUs), in their order."""
    known = [each for run in probed(point, "activity").runs if (each := relu_activity(run))]
    return stacked([layer.mostly_off / len(layer.off) for layer in each] for each in known)


def off_shares(point: Point) -> OffShares | None:
    """On which share of its inputs each feature is off; None where it was not measured."""
    known = [each for run in probed(point, "activity").runs if (each := relu_activity(run))]
    if not known:
        return None
    return OffShares(np.concatenate([layer.off for each in known for layer in each]), len(known))


def feature_shares(point: Point, kind: str = "mostly_off") -> Spread | None:
    """The share of the network's features that are mostly off, or with kind="dead" always, over the
    finished runs; each feature counts once."""
    known = [each for run in probed(point, "activity").runs if (each := relu_activity(run))]
    return spread(
        sum(getattr(layer, kind) for layer in each) / sum(len(layer.off) for layer in each)
        for each in known
    )


def stacked(rows: Iterable[list[float]]) -> Array | None:
    """Rows of one length as an array; those of another length than the first are left out."""
    kept = list(rows)
    kept = [row for row in kept if len(row) == len(kept[0])]
    return np.array(kept) if kept else None


def clamp_curves(point: Point) -> list[ClampCurve]:
    """Those of the finished runs, all on as many images and at the thresholds of the first."""
    found = [each for run in probed(point, "clamp").runs if (each := clamp_curve(run))]
    return [each for each in found if np.array_equal(each.thresholds, found[0].thresholds)]


def clamped(point: Point) -> Clamped | None:
    """The clamp curves of a point at 0 and at 0.01; None where there is none."""
    found = clamp_curves(point)
    if not found or not {0.0, SMALL} <= set(found[0].thresholds.tolist()):
        return None
    at = {float(each): place for place, each in enumerate(found[0].thresholds)}
    recorded = [each.recorded for each in found]
    return Clamped(
        share=_mean(each.shares[at[SMALL]] for each in found),
        before=_mean(each.accuracy[at[0.0]] for each in found),
        after=_mean(each.accuracy[at[SMALL]] for each in found),
        random=_mean(each.random[:, at[SMALL]].mean() for each in found),
        images=found[0].images,
        n=len(found),
        recorded=None if None in recorded else _mean(each for each in recorded if each is not None),
    )


def quiet(point: Point) -> Quiet | None:
    """How many features of a point's networks are off; None where it was not measured."""
    off, dead = feature_shares(point), feature_shares(point, "dead")
    if off is None or dead is None:
        return None
    return Quiet(off.mean, dead.mean, probed(point, "activity").images, off.n)


def by_network(points: Iterable[Point]) -> Mapping[str, list[Point]]:
    """Points by network, in the order of the experiment."""
    found: dict[str, list[Point]] = {}
    for point in points:
        found.setdefault(point.spec.model, []).append(point)
    return found


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
