"""Data sets by name: checked arrays in memory, or for imagenet encoded images to stream.

`gammabeta.data.augment` (order, crops, flips, normalisation) and `gammabeta.data.crops` (random
crops, resizing) are imported by their own names, because they need torch and reading images does
not.
"""

from collections.abc import Callable
from pathlib import Path

from gammabeta.data.cifar import load_cifar
from gammabeta.data.dataset import (
    Dataset,
    Split,
    hold_out,
    make_dataset,
    randomise_labels,
    subsample,
    subsample_test,
    unnormalised,
)
from gammabeta.data.digits import load_digits
from gammabeta.data.imagenet import load_imagenet
from gammabeta.data.pictures import Pictures, Reading
from gammabeta.data.synthetic import load_synthetic
from gammabeta.errors import InputError, suggest
from gammabeta.spec import DATA_SETS

__all__ = [
    "Dataset",
    "Pictures",
    "Reading",
    "Split",
    "hold_out",
    "load_dataset",
    "make_dataset",
    "randomise_labels",
    "subsample",
    "subsample_test",
    "unnormalised",
]

_SHIPPED: dict[str, Callable[[], Dataset]] = {"digits": load_digits, "synthetic": load_synthetic}


def load_dataset(
    name: str,
    data_dir: str | Path | None = None,
    reading: Reading | None = None,
    image_size: int = 224,
) -> Dataset:
    """Read one of `spec.DATA_SETS`.

    data_dir: the folder to look in for CIFAR (subfolders too). By default that of the environment
    variable GAMMABETA_DATA, and without it the cache folder; only in these two cases is a CIFAR
    that is not there downloaded (never with GAMMABETA_OFFLINE=1). `digits` and
    `synthetic` take no folder. reading, image_size: of imagenet, see `load_imagenet`.
    Raises InputError with what to put where.
    """
    if name not in DATA_SETS:
        raise InputError(f"unknown data set {name!r}: {suggest(str(name), DATA_SETS)}")
    if name == "imagenet":
        return load_imagenet(data_dir, reading or Reading(), image_size)
    if reading is not None and reading != Reading():
        raise InputError(
            f"{name} is read whole: workers, skip_broken and image_store are imagenet's"
        )
    if name in _SHIPPED:
        if data_dir is not None:
            raise InputError(f"{name} needs no files: leave the data folder out")
        return _SHIPPED[name]()
    return load_cifar(name, data_dir)
