"""Gamma and beta of every normalisation layer. Needs only the checkpoint, no image.

All layers of the network count, those on shortcuts too, whether their gammas trained or not; what
did not train is at its start value. A gamma is small where |gamma| < threshold, strictly, compared
in float32 (`gammabeta.gammas.small_share`). Deviations are those of the population.
"""

from typing import Any

import numpy as np

from gammabeta.errors import RunError
from gammabeta.gammas import gammas, small_share
from gammabeta.probe.subject import Subject, short
from gammabeta.roles import roles

# From 0.0001 to 10, twenty a decade; 0.01 is among them.
THRESHOLDS = tuple(float(f"{10 ** (step / 20):.4g}") for step in range(-80, 21))
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

Array = np.ndarray[Any, np.dtype[Any]]


def asked() -> dict[str, Any]:
    return {"thresholds": list(THRESHOLDS), "quantiles": list(QUANTILES)}


def measure(subject: Subject) -> dict[str, Any]:
    """layers: in the module's order, {name, channels, on_shortcut, gamma, beta}; network: {gamma,
    beta} of all layers pooled; shares: of gammas below each of the asked thresholds.

    gamma, beta: {trained, mean, std, low, high, quantiles, values}, gamma also small_share (below
    0.01); values are those of the channels, in order. beta is None for a layer that has none.
    """
    parameters = dict(subject.network.named_parameters())
    trained = {row["name"]: bool(row["trained"]) for row in subject.run.folder.inputs["tensors"]}
    shortcuts = {role.name: role.on_shortcut for role in roles(subject.network)}
    layers: list[dict[str, Any]] = []
    all_gammas: list[Array] = []
    all_betas: list[Array] = []
    for name, gamma in gammas(subject.network).items():
        values = gamma.float().cpu().numpy()
        row: dict[str, Any] = {
            "name": name.rpartition(".")[0],
            "channels": len(values),
            "on_shortcut": shortcuts[name],
            "gamma": _gamma(values) | {"trained": trained[name], "values": _shortened(values)},
            "beta": None,
        }
        all_gammas.append(values)
        beta = name.removesuffix("weight") + "bias"
        if beta in parameters:
            values = parameters[beta].detach().float().cpu().numpy()
            row["beta"] = _spread(values) | {"trained": trained[beta]}
            row["beta"]["values"] = _shortened(values)
            all_betas.append(values)
        layers.append(row)
    if not layers:
        raise RunError(
            f"run {subject.run.id} has no gammas: its network has no normalisation layer"
        )
    pooled = np.concatenate(all_gammas)
    gamma_row = _gamma(pooled)
    beta_row = _spread(np.concatenate(all_betas)) if all_betas else None
    return {
        "layers": layers,
        "network": {"gamma": gamma_row, "beta": beta_row},
        "shares": [short(small_share(pooled, threshold)) for threshold in THRESHOLDS],
        "summary": {
            "gammas": len(pooled),
            "small_share": gamma_row["small_share"],
            "gamma_mean": gamma_row["mean"],
            "gamma_std": gamma_row["std"],
            "beta_mean": beta_row and beta_row["mean"],
            "beta_std": beta_row and beta_row["std"],
        },
    }


def _gamma(values: Array) -> dict[str, Any]:
    return _spread(values) | {"small_share": short(small_share(values))}


def _spread(values: Array) -> dict[str, Any]:
    exact = values.astype(np.float64)
    return {
        "mean": short(exact.mean()),
        "std": short(exact.std()),
        "low": short(exact.min()),
        "high": short(exact.max()),
        "quantiles": [short(value) for value in np.quantile(exact, QUANTILES)],
    }


def _shortened(values: Array) -> list[float]:
    return [short(value) for value in values.tolist()]
