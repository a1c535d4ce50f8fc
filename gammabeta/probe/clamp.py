"""Test accuracy after setting every |gamma| below a threshold to zero, against setting as many
randomly chosen gammas to zero.

All gammas of the network count, those on shortcuts too, trained or not. The comparison is strict
and in float32, as in `gammabeta.gammas.small_share`: at threshold 0 nothing is clamped. Only gamma
is set to zero; beta stays, and so do the running statistics, which the layers behind a clamped one
therefore meet with inputs of another spread. Nothing is trained again.

The random choice: a draw is one order of all gammas, from (seed of the run, "probe/clamp", draw),
and k random gammas are the first k of it, so that those of a smaller threshold are among those of a
larger one.
"""

from typing import Any

import numpy as np
import torch

from gammabeta import rng
from gammabeta.engine.batches import TestTotals
from gammabeta.errors import RunError
from gammabeta.gammas import gammas
from gammabeta.probe.subject import Subject, short
from gammabeta.small import SMALL

THRESHOLDS = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
DRAWS = 3
EVALUATIONS = 1 + (len(THRESHOLDS) - 1) * (1 + DRAWS)  # at most: at threshold 0 all are one

Array = np.ndarray[Any, np.dtype[Any]]


def asked() -> dict[str, Any]:
    return {"thresholds": list(THRESHOLDS), "draws": DRAWS}


def measure(
    subject: Subject, thresholds: tuple[float, ...] = THRESHOLDS, draws: int = DRAWS
) -> dict[str, Any]:
    """points: one a threshold, {threshold, clamped, share, test_accuracy, random}: how many gammas,
    their share of all, the accuracy without them, and that without as many random ones, one value a
    draw; with more than ten classes also test_top5 and random_top5. recorded: what the run itself
    recorded at this epoch on all test images (None: nothing), to hold beside threshold 0.
    """
    layers = list(gammas(subject.network).values())
    if not layers:
        raise RunError(
            f"run {subject.run.id} has no gammas: its network has no normalisation layer"
        )
    start = np.concatenate([layer.float().cpu().numpy() for layer in layers])  # (gammas,)
    orders = [
        rng.generator(subject.run.spec.seed, "probe/clamp", draw).permutation(len(start))
        for draw in range(draws)
    ]
    known: dict[bytes, dict[str, float]] = {}  # two thresholds may clamp the same gammas

    def without(off: Array) -> dict[str, float]:
        """Metrics with the gammas at zero for which `off`, a bool (gammas,), is true."""
        key = off.tobytes()
        if key not in known:
            _set(layers, np.where(off, np.float32(0), start))
            known[key] = _evaluate(subject)
        return known[key]

    points: list[dict[str, Any]] = []
    try:
        for threshold in thresholds:
            small = np.abs(start) < threshold
            clamped = int(small.sum())
            found = without(small)
            random = [without(np.isin(np.arange(len(start)), order[:clamped])) for order in orders]
            point: dict[str, Any] = {
                "threshold": threshold,
                "clamped": clamped,
                "share": short(small.mean()),
            }
            for kind in found:
                point[kind] = short(found[kind])
                name = "random" + kind.removeprefix("test").removesuffix("_accuracy")
                point[name] = [short(each[kind]) for each in random]
            points.append(point)
    finally:
        _set(layers, start)
    return {"points": points, "summary": _summary(points)}


def _set(layers: list[torch.Tensor], values: Array) -> None:
    """Write one row of values into the gammas of all layers, in their order."""
    place = 0
    for layer in layers:
        layer.copy_(torch.from_numpy(values[place : place + layer.numel()]))
        place += layer.numel()


def _evaluate(subject: Subject) -> dict[str, float]:
    """test_accuracy and, with more than ten classes, test_top5."""
    totals = TestTotals(subject.device)
    for images, labels in subject.test():
        logits = subject.logits(images)
        totals.add(logits, labels)
    metrics = totals.metrics(logits.shape[1])
    return {kind: metrics[kind] for kind in ("test_accuracy", "test_top5") if kind in metrics}


def _summary(points: list[dict[str, Any]]) -> dict[str, Any]:
    """The accuracy of the network as it is, and at the threshold 0.01."""
    found: dict[str, Any] = {}
    for point in points:
        if point["threshold"] == 0:
            found["test_accuracy"] = point["test_accuracy"]
        elif point["threshold"] == SMALL:
            found["clamped"] = point["clamped"]
            found["clamped_accuracy"] = point["test_accuracy"]
            random = point["random"]
            found["random_accuracy"] = short(sum(random) / len(random)) if random else None
    return found
