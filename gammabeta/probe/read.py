"""What figures need of the probes of a run, read from its folder alone: no data, no network.

Each function returns None where the probe has not been made, or where its file is not `current` or
damaged; `trouble` says which of these.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from zlib import error as ZlibError

import numpy as np

from gammabeta.probe.pack import unpack, unpack_scaled
from gammabeta.store import RunFolder

Array = np.ndarray[Any, np.dtype[Any]]
FORMAT = 1  # of the files: raised when what a probe measures changes, which makes all of them stale
# How far two accuracies of one network on the same images may be apart by rounding alone, which is
# another's on every engine and machine.
ROUNDING = 0.005
_MALFORMED = (KeyError, IndexError, TypeError, ValueError, AttributeError, ZlibError)


@dataclass(frozen=True)
class ClampCurve:
    """thresholds, shares (of all gammas that are clamped), accuracy: (T,). random: accuracy without
    as many random gammas, (draws, T). images: how many were classified. recorded: what the run
    itself recorded of these same images; None where they are not all of its test images."""

    thresholds: Array
    shares: Array
    accuracy: Array
    random: Array
    images: int
    recorded: float | None = None


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
    found = _read(run, "gammas", _layer_values)
    return None if found is None else found[kind]


def small_curve(run: RunFolder) -> tuple[Array, Array] | None:
    """(thresholds, share of all gammas with |gamma| below each), both (T,)."""
    found: tuple[Array, Array] | None = _read(run, "gammas", _small_curve)
    return found


def clamp_curve(run: RunFolder) -> ClampCurve | None:
    found: ClampCurve | None = _read(run, "clamp", _clamp_curve)
    return found


def relu_activity(run: RunFolder) -> list[LayerActivity] | None:
    """One row a ReLU, in order of execution."""
    found: list[LayerActivity] | None = _read(run, "activity", _relu_activity)
    return found


def feature_maps(run: RunFolder) -> list[FeatureMaps] | None:
    """One row a convolution that was chosen."""
    found: list[FeatureMaps] | None = _read(run, "maps", _feature_maps)
    return found


def images_seen(run: RunFolder, name: str) -> int | None:
    """On how many test images a probe was made; None where the functions above give None."""
    if _read(run, name, _READERS[name]) is None:
        return None
    return int((current(run, name) or {})["made_from"]["images"])


def current(run: RunFolder, name: str) -> dict[str, Any] | None:
    """The file of a probe; None unless it was made by the definitions of today (FORMAT), after the
    run's last epoch, and with the data of the run. By which gammabeta does not matter. Raises
    RunError if inputs.json is damaged."""
    found = run.probe(name)
    return found if found is not None and _stale(run, found) is None else None


def trouble(run: RunFolder, name: str) -> str | None:
    """Why a file of this probe that is there is not read, in a sentence; None where it is, or where
    there is none."""
    if not (run.path / "probe" / f"{name}.json").exists():
        return None
    found = run.probe(name)
    if found is not None and (why := _stale(run, found)) is not None:
        pass
    elif _read(run, name, _READERS[name]) is None:
        why = "is damaged"
    else:
        return None
    return f"Not read: {name}.json of run {run.id} {why}; gammabeta analyze makes it again."


def _stale(run: RunFolder, found: dict[str, Any]) -> str | None:
    made_from, last = found.get("made_from"), run.epochs_done
    if not isinstance(made_from, dict) or type(made_from.get("images")) is not int:
        return "is damaged"
    if found.get("format") != FORMAT:
        return f"has format {found.get('format')!r}, not {FORMAT}"
    if made_from.get("epoch") != last:
        return f"was made after epoch {made_from.get('epoch')}, not {last}"
    if made_from.get("data_sha256") != run.inputs.get("data", {}).get("sha256"):
        return "was made with other data"
    return None


def _read(run: RunFolder, name: str, make: Callable[[dict[str, Any]], Any]) -> Any:
    """What `make` makes of a probe's file; None where it is not current, or where it is JSON but
    not what a probe writes."""
    found = current(run, name)
    if found is None:
        return None
    try:
        return make(found)
    except _MALFORMED:
        return None


def _layer_values(found: dict[str, Any]) -> dict[str, dict[str, Array]]:
    return {
        kind: {
            row["name"]: _numbers(row[kind]["values"], 1)
            for row in _rows(found["layers"])
            if row[kind]
        }
        for kind in ("gamma", "beta")
    }


def _small_curve(found: dict[str, Any]) -> tuple[Array, Array]:
    thresholds = _numbers(found["asked"]["thresholds"], 1)
    return thresholds, _numbers(found["shares"], 1, len(thresholds))


def _gammas(found: dict[str, Any]) -> object:
    return _layer_values(found), _small_curve(found)


def _clamp_curve(found: dict[str, Any]) -> ClampCurve:
    points = found["points"]
    thresholds, shares, accuracy = (
        _numbers([point[key] for point in points], 1)
        for key in ("threshold", "share", "test_accuracy")
    )
    random = _numbers([point["random"] for point in points], 2)
    recorded = found.get("recorded")
    return ClampCurve(
        thresholds, shares, accuracy, random.T, found["made_from"]["images"],
        None if recorded is None else float(recorded),
    )  # fmt: skip


def _relu_activity(found: dict[str, Any]) -> list[LayerActivity]:
    layers = []
    for row in _rows(found["layers"]):
        off = _numbers(row["off"], 1)
        if int(row["inputs"]) < 1:
            raise ValueError("a feature without an input")
        layers.append(
            LayerActivity(
                name=str(row["name"]),
                off=off / int(row["inputs"]),
                low=_numbers(row["low"], 1, len(off)),
                high=_numbers(row["high"], 1, len(off)),
                mostly_off=int(row["mostly_off"]),
                dead=int(row["dead"]),
                constant=int(row["constant"]),
            )
        )
    return layers


def _feature_maps(found: dict[str, Any]) -> list[FeatureMaps]:
    images = unpack(found["pixels"])
    labels, predicted = (_numbers(found[key], 1).astype(int) for key in ("labels", "predicted"))
    return [
        FeatureMaps(
            str(row["name"]), int(row["place"]), images, labels, predicted,
            unpack_scaled(row["maps"]), unpack_scaled(row["filters"]),
        )
        for row in _rows(found["layers"])
    ]  # fmt: skip


def _rows(layers: Any) -> list[dict[str, Any]]:
    """Raises ValueError for anything but a list of at least one layer."""
    if not isinstance(layers, list) or not layers:
        raise ValueError("no layers")
    return layers


def _numbers(values: Any, dimensions: int, count: int | None = None) -> Array:
    """As an array; null, for what was no number, is nan. Raises ValueError or TypeError for
    anything but lists of numbers of that many dimensions, and of that length."""
    found = np.array(values, dtype=float)
    if found.ndim != dimensions or found.size == 0 or (count is not None and len(found) != count):
        raise ValueError(f"an array of {found.shape} numbers")
    return found


_READERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "gammas": _gammas, "clamp": _clamp_curve, "activity": _relu_activity, "maps": _feature_maps,
}  # fmt: skip
