"""The random start: every tensor drawn on the CPU from a stream of its own name.

Weights (paper section 3; the other three are in the authors' code):
    kaiming_normal   N(0, 2 / fan_in)
    kaiming_uniform  U(-b, b), b = sqrt(6 / fan_in)
    orthogonal       the filters, flattened to rows, are orthonormal (computed by LAPACK, whose
                     last bits differ between processors; rounding to fp32 hides nearly all)
    binary           +-s with equal chance, s the standard deviation of a kaiming_normal draw
Norm layers, (gamma, beta): uniform U(0, 1), 0; ones 1, 0; ones_ones 1, 1; symmetric U(-1, 1), 0.
Biases of convolutions and linear layers: uniform U(-1/sqrt(fan_in), 1/sqrt(fan_in)), torch's
default; zeros, Keras' default.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gammabeta import rng
from gammabeta.errors import InputError, suggest

Array = np.ndarray[Any, np.dtype[np.float64]]


def _kaiming_normal(draw: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return draw.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))


def _kaiming_uniform(draw: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return (2 * draw.random(shape) - 1) * math.sqrt(6 / math.prod(shape[1:]))


def _orthogonal(draw: np.random.Generator, shape: tuple[int, ...]) -> Array:
    rows, columns = shape[0], math.prod(shape[1:])
    tall = draw.standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(tall)
    q *= np.sign(np.diag(r))  # makes the draw uniform over the orthogonal matrices
    filters: Array = q if rows >= columns else q.T
    return filters.reshape(shape)


def _binary(draw: np.random.Generator, shape: tuple[int, ...]) -> Array:
    values = _kaiming_normal(draw, shape)
    signs: Array = np.copysign(values.std(), values)
    return signs


WEIGHT_INITS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Array]] = {
    "kaiming_normal": _kaiming_normal,
    "kaiming_uniform": _kaiming_uniform,
    "orthogonal": _orthogonal,
    "binary": _binary,
}
# name -> (gamma as a function of U(0, 1) draws, beta)
NORM_INITS: dict[str, tuple[Callable[[Array], Array], float]] = {
    "uniform": (lambda u: u, 0.0),
    "ones": (np.ones_like, 0.0),
    "ones_ones": (np.ones_like, 1.0),
    "symmetric": (lambda u: 2 * u - 1, 0.0),
}
BIAS_INITS = ("uniform", "zeros")


@torch.no_grad()
def initialise(
    model: nn.Module, weight_init: str, norm_init: str, bias_init: str, seed: int
) -> None:
    """Fill every parameter and buffer of a network of this package, in place."""
    if weight_init not in WEIGHT_INITS:
        raise InputError(
            f"unknown weight_init '{weight_init}': {suggest(weight_init, WEIGHT_INITS)}"
        )
    if norm_init not in NORM_INITS:
        raise InputError(f"unknown norm_init '{norm_init}': {suggest(norm_init, NORM_INITS)}")
    if bias_init not in BIAS_INITS:
        raise InputError(f"unknown bias_init '{bias_init}': {suggest(bias_init, BIAS_INITS)}")
    make_gamma, beta = NORM_INITS[norm_init]
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            shape = tuple(module.weight.shape)
            draw = rng.generator(seed, f"init/{name}.weight")
            _fill(module.weight, WEIGHT_INITS[weight_init](draw, shape))
            if module.bias is not None:
                draw = rng.generator(seed, f"init/{name}.bias")
                bound = 1 / math.sqrt(math.prod(shape[1:])) if bias_init == "uniform" else 0.0
                _fill(module.bias, (2 * draw.random(shape[0]) - 1) * bound)
        elif isinstance(module, nn.BatchNorm2d):
            draw = rng.generator(seed, f"init/{name}.weight")
            _fill(module.weight, make_gamma(draw.random(module.num_features)))
            module.bias.fill_(beta)
            module.reset_running_stats()


def _fill(tensor: Tensor, values: Array) -> None:
    tensor.copy_(torch.from_numpy(values))  # float64 to float32: one rounding, the same everywhere
