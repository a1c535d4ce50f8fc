"""What figures need of the probes of a run, read from its folder alone: no data, no network.

Each function returns None where the probe has not been made.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from gammabeta.probe.pack import unpack, unpack_scaled
from gammabeta.store import RunFolder

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class ClampCurve:
    """thresholds, shares (of all gammas that are clamped), accuracy: (T,). random: accuracy without
    as many random gammas, (draws, T). images: how many were classified."""

    thresholds: Array
    shares: Array
    accuracy: Array
    random: Array
    images: int


@dataclass(frozen=True)
class LayerActivity:
    """One ReLU. off: on which share of its inputs each feature is off, (C,); low, high: its
    smallest and largest output, (C,). mostly_off, dead, constant: how many features are."""

    name: str
    off: Array
    low: Array
    high: Array
    mostly_off: int
    dead: int
    constant: int


@dataclass(frozen=True)
class FeatureMaps:
    """One convolution. images: uint8 (N, H, W, C); labels, predicted: (N,). maps: (N, C, H, W);
    filters: (C, C in, height, width); both of the first channels only, up to 1/510 of the range of
    each. name, place: of the convolution, counted from 1."""

    name: str
    place: int
    images: Array
    labels: Array
    predicted: Array
    maps: Array
    filters: Array


def layer_values(run: RunFolder, kind: str = "gamma") -> dict[str, Array] | None:
    """The gammas, or with kind="beta" the betas, by layer name, each (C,); trained or not."""
    found = run.probe("gammas")
    if found is None:
        return None
    return {row["name"]: np.array(row[kind]["values"]) for row in found["layers"] if row[kind]}


def small_curve(run: RunFolder) -> tuple[Array, Array] | None:
    """(thresholds, share of all gammas with |gamma| below each), both (T,)."""
    found = run.probe("gammas")
    if found is None:
        return None
    return np.array(found["asked"]["thresholds"]), np.array(found["shares"])


def clamp_curve(run: RunFolder) -> ClampCurve | None:
    found = run.probe("clamp")
    if found is None:
        return None
    columns = {
        key: np.array([point[key] for point in found["points"]])
        for key in ("threshold", "share", "test_accuracy", "random")
    }
    images = int(found["made_from"]["images"])
    thresholds, shares, accuracy, random = columns.values()
    return ClampCurve(thresholds, shares, accuracy, random.T, images)


def relu_activity(run: RunFolder) -> list[LayerActivity] | None:
    """One row a ReLU, in order of execution."""
    found = run.probe("activity")
    if found is None:
        return None
    return [
        LayerActivity(
            name=row["name"],
            off=np.array(row["off"]) / row["inputs"],
            low=np.array(row["low"], dtype=float),  # null, for what was no number, is nan
            high=np.array(row["high"], dtype=float),
            mostly_off=row["mostly_off"],
            dead=row["dead"],
            constant=row["constant"],
        )
        for row in found["layers"]
    ]


def feature_maps(run: RunFolder) -> list[FeatureMaps] | None:
    """One row a convolution that was chosen."""
    found = run.probe("maps")
    if found is None:
        return None
    images = unpack(found["pixels"])
    classes = np.array(found["labels"]), np.array(found["predicted"])
    return [
        FeatureMaps(
            row["name"], row["place"], images, *classes,
            unpack_scaled(row["maps"]), unpack_scaled(row["filters"]),
        )
        for row in found["layers"]
    ]  # fmt: skip
