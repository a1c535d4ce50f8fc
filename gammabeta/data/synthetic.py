"""`synthetic`: ten classes of smooth colour patterns under noise, for tests and dry runs.

Learnable, so a loss that does not fall means a bug; it says nothing about real images. Integer
arithmetic throughout, so every machine makes the same bytes.
"""

import numpy as np

from gammabeta import rng
from gammabeta.data.dataset import Dataset, Split, make_dataset

_CLASSES, _TRAIN, _TEST = 10, 2048, 512
_CELL = 8  # pixels between two nodes of a pattern


def load_synthetic() -> Dataset:
    """2,048 training and 512 test images, always the same."""
    draws = rng.generator(0, "synthetic")
    nodes = 32 // _CELL + 1
    grid = draws.integers(-64, 65, size=(_CLASSES, nodes, nodes, 3))
    patterns = _stretch(_stretch(grid, axis=1), axis=2) // _CELL**2
    return make_dataset(
        "synthetic",
        _split(draws, patterns, _TRAIN),
        _split(draws, patterns, _TEST),
        num_classes=_CLASSES,
        origin="made by gammabeta",
    )


def _stretch(grid: np.ndarray, axis: int) -> np.ndarray:
    """Linear interpolation from 5 nodes to 32 pixels along one axis, times _CELL."""
    pixel = np.arange(32)
    shape = [1] * grid.ndim
    shape[axis] = 32
    weight = (pixel % _CELL).reshape(shape)
    left, right = grid.take(pixel // _CELL, axis), grid.take(pixel // _CELL + 1, axis)
    stretched: np.ndarray = (_CELL - weight) * left + weight * right
    return stretched


def _split(draws: np.random.Generator, patterns: np.ndarray, count: int) -> Split:
    """Each image: its class's pattern at a random contrast, plus noise on every value."""
    labels = draws.permutation(np.arange(count, dtype=np.int64) % _CLASSES)
    contrast = draws.integers(4, 17, size=(count, 1, 1, 1), dtype=np.int16)  # in sixteenths
    noise = draws.integers(-48, 49, size=(count, 32, 32, 3), dtype=np.int16)
    images = 128 + patterns.astype(np.int16)[labels] * contrast // 16 + noise
    return Split(images.clip(0, 255).astype(np.uint8), labels)
