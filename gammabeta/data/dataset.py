"""What a data set is here: checked uint8 images and int64 labels in memory, and their fingerprint.

No files, no torch, no augmentation: the readers beside this module make the arrays, `make_dataset`
checks them, and everything else may rely on them.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gammabeta import rng
from gammabeta.data.pictures import Pictures
from gammabeta.errors import InputError, in_full

IMAGE_SHAPE = (32, 32, 3)  # H W C
# The published ImageNet statistics. The paper normalises CIFAR with them too, so all sets do.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, eq=False)
class Split:
    """images: uint8 (N, 32, 32, 3), N H W C, red green blue. labels: int64 (N,)."""

    images: np.ndarray
    labels: np.ndarray

    def first(self, count: int) -> "Split":
        return Split(self.images[:count], self.labels[:count])

    def after(self, count: int) -> "Split":
        return Split(self.images[count:], self.labels[count:])

    def with_labels(self, labels: np.ndarray) -> "Split":
        return Split(self.images, labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Both splits of one data set: arrays are made by `make_dataset` only, Pictures by imagenet.py.

    mean, std: per channel, for pixels in [0, 1]. sha256: of the pixels and labels as they were
    read, before `subsample` or `randomise_labels` (of Pictures: of their names, sizes and labels).
    source: one short line on where they came from. skipped: the names of images left out as broken.
    made_from: JSON values on what images are published as and how these were made of them; None
    where they are as published, or encoded.
    """

    name: str
    train: Split | Pictures
    test: Split | Pictures
    num_classes: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    sha256: str
    source: str
    skipped: tuple[str, ...] = ()
    made_from: Mapping[str, Any] | None = None


def make_dataset(
    name: str,
    train: Split,
    test: Split,
    *,
    num_classes: int,
    origin: str,
    encoding: str = "",
    made_from: Mapping[str, Any] | None = None,
) -> Dataset:
    """Check both splits and join them.

    origin, encoding: the two ends of the line `source`, e.g. "Parquet" and "JPEG". made_from: see
    Dataset.
    Raises InputError where a split is empty, or a shape, a type or a label is wrong.
    """
    for title, split in (("training", train), ("test", test)):
        _check(f"{name}, {title} images", split, num_classes)
    counts = f"{len(train.labels):,} train and {len(test.labels):,} test images"
    source = ", ".join(part for part in (origin, counts, encoding) if part)
    sha256 = fingerprint(train, test)
    return Dataset(name, train, test, num_classes, MEAN, STD, sha256, source, made_from=made_from)


def _check(where: str, split: Split, num_classes: int) -> None:
    images, labels = split.images, split.labels
    if images.dtype != np.uint8 or images.shape[1:] != IMAGE_SHAPE:
        raise InputError(
            f"{where}: expected uint8 of shape (N, 32, 32, 3), not {images.dtype} {images.shape}"
        )
    if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
        raise InputError(
            f"{where}: expected {len(images)} int64 labels, not {labels.dtype} {labels.shape}"
        )
    if not len(images):
        raise InputError(f"{where}: there are none, and at least one is needed")
    check_labels(where, labels, num_classes)


def check_labels(where: str, labels: np.ndarray, num_classes: int) -> None:
    """Raise InputError for the first label outside 0 to num_classes - 1, naming `where` and row."""
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"{where}: row {row} has label {labels[row]}, but there are {num_classes} classes: "
            f"labels run from 0 to {num_classes - 1}"
        )


def fingerprint(*splits: Split) -> str:
    """The sha256 of shapes, pixels and labels, so equal images from any format give one value."""
    digest = hashlib.sha256()
    for split in splits:
        # The byte order is part of the fingerprint, so it is fixed before hashing.
        for array in (split.images, split.labels.astype("<i8")):
            digest.update(f"{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def subsample(dataset: Dataset, count: int) -> Dataset:
    """The first `count` training images; the test split and sha256 stay."""
    available = len(dataset.train.labels)
    if not 1 <= count <= available:
        raise InputError(
            f"subsample is {count}, but {dataset.name} has {available:,} training images: "
            f"write 1 to {available}"
        )
    return dataclasses.replace(dataset, train=dataset.train.first(count))


def subsample_test(dataset: Dataset, count: int) -> Dataset:
    """The first `count` test images; the training split and sha256 stay."""
    available = len(dataset.test.labels)
    if not 1 <= count <= available:
        raise InputError(
            f"test_subsample is {count}, but {dataset.name} has {available:,} test images: "
            f"write 1 to {available}"
        )
    return dataclasses.replace(dataset, test=dataset.test.first(count))


def hold_out(dataset: Dataset, share: float) -> Dataset:
    """The last of the training images, so large a share, in place of the test images, which nobody
    looks at; the rest is trained on. sha256 stays."""
    count = len(dataset.train.labels)
    held = round(share * count)
    if not 0 < held < count:
        raise InputError(
            f"validation is {in_full(share)}, {held:,} of the {count:,} training images: write a "
            "share that leaves some on both sides, as 0.1"
        )
    source = f"{dataset.source}; tested on {held:,} training images held out, not on test images"
    train, test = dataset.train.first(count - held), dataset.train.after(count - held)
    return dataclasses.replace(dataset, train=train, test=test, source=source)


def unnormalised(dataset: Dataset) -> Dataset:
    """Pixels are left in [0, 1]: mean 0, deviation 1."""
    return dataclasses.replace(dataset, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def randomise_labels(dataset: Dataset, share: float, seed: int) -> Dataset:
    """Redraw this share of the training labels, uniformly over all classes; sha256 stays.

    A redrawn label may be the right one by chance. The images hit by a small share are also hit by
    every larger one, with the same new label, so shares can be compared at one seed.
    """
    if not 0 <= share <= 1:
        raise InputError(
            f"the share of random labels is {in_full(share)}: write a number from 0 to 1"
        )
    labels = dataset.train.labels.copy()
    draws = rng.generator(seed, "random-labels")
    chosen = draws.permutation(len(labels))[: round(share * len(labels))]
    redrawn = draws.integers(0, dataset.num_classes, size=len(labels))
    labels[chosen] = redrawn[chosen]
    return dataclasses.replace(dataset, train=dataset.train.with_labels(labels))
