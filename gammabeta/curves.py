"""Run folders to curves over epochs and to pools of gammas: the numbers behind the figures.

Like analysis.py it reads what the store holds, builds no model and measures nothing again.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from gammabeta.analysis import finite
from gammabeta.gammas import pool
from gammabeta.store import RunFolder


@dataclass(frozen=True)
class Curve:
    """Accuracy over epochs of one subset: mean, lowest and highest over n seeds, each of shape (E).

    finished: False when no run of the subset has finished, so that the curve is one of runs that
    are under way; finished and unfinished runs are never mixed in one mean.
    """

    trainable: str
    n: int
    finished: bool
    epochs: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class GammaPool:
    """The gammas of all layers of all n finished runs of one subset, values of shape (count)."""

    trainable: str
    n: int
    values: np.ndarray


def learning_curve(
    run: RunFolder, quantity: str = "test_accuracy"
) -> tuple[np.ndarray, np.ndarray]:
    """(epochs, values), both of shape (E), for the epochs at which `quantity` was recorded."""
    points = {
        row["epoch"]: value
        for row in run.metrics()
        if (value := finite(row.get(quantity))) is not None
    }
    return np.array(sorted(points), dtype=int), np.array([points[e] for e in sorted(points)])


def curves(runs: Iterable[RunFolder], quantity: str = "test_accuracy") -> list[Curve]:
    """One curve a subset, over the epochs that all of its runs have recorded."""
    found = []
    for trainable, members in _by_subset(runs).items():
        finished = [run for run in members if run.status == "ok"]
        points = [
            dict(zip(*learning_curve(run, quantity), strict=True)) for run in finished or members
        ]
        points = [each for each in points if each]
        epochs = sorted(set.intersection(*(set(each) for each in points))) if points else []
        if epochs:
            values = np.array([[each[epoch] for epoch in epochs] for each in points])  # (n, E)
            low, high = values.min(axis=0), values.max(axis=0)
            shape = (np.array(epochs), values.mean(axis=0), low, high)
            found.append(Curve(trainable, len(points), bool(finished), *shape))
    return found


def gammas(run: RunFolder, kind: str = "gamma") -> dict[str, np.ndarray] | None:
    """The trained gammas, or with kind="beta" the betas, of the last checkpoint by layer name, each
    of shape (channels); None when they do not train or there is no checkpoint."""
    tensors = run.inputs["tensors"]
    names = [each["name"] for each in tensors if each["role"] == kind and each["trained"]]
    if not names:
        return None
    checkpoint, _ = run.load_checkpoint()
    if checkpoint is None:
        return None
    stored = checkpoint.tensors
    found = {name: stored[f"trained/{name}"] for name in names if f"trained/{name}" in stored}
    return {
        name.rpartition(".")[0] or name: np.asarray(each) for name, each in found.items()
    } or None


def gamma_pools(runs: Iterable[RunFolder]) -> list[GammaPool]:
    """The gammas of each subset that trains them, pooled over layers and finished runs."""
    pools = []
    for trainable, members in _by_subset(runs).items():
        found = [each for run in members if run.status == "ok" and (each := gammas(run))]
        if found:
            pools.append(GammaPool(trainable, len(found), np.concatenate([*map(pool, found)])))
    return pools


def _by_subset(runs: Iterable[RunFolder]) -> dict[str, list[RunFolder]]:
    members: dict[str, list[RunFolder]] = {}
    for run in runs:
        members.setdefault(str(run.spec.get("trainable", "")), []).append(run)
    return members
