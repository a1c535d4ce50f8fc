"""Images that stay encoded until a batch needs them, because decoded they would fill the memory."""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gammabeta import rng
from gammabeta.errors import InputError


class Source(Protocol):
    """Where encoded images lie, by row."""

    @property
    def names(self) -> Sequence[str]:
        """What each is called in messages and in the fingerprint."""
        ...

    @property
    def sizes(self) -> Sequence[int]:
        """Of each, in bytes."""
        ...

    def read(self, row: int) -> bytes | memoryview:
        """The encoded image. Raises OSError."""
        ...


@dataclass(frozen=True)
class Entry:
    """An image on its way into a store or into memory. split: 0 train, 1 test."""

    split: int
    name: str
    label: int
    read: Callable[[], bytes]


@dataclass(frozen=True, eq=False)
class Pictures:
    """One split. rows: int64 (N,), which images of the source, in the order of the data set;
    labels: int64 (N,); workers: threads that decode."""

    source: Source
    rows: np.ndarray
    labels: np.ndarray
    workers: int

    def name(self, index: int) -> str:
        return self.source.names[int(self.rows[index])]

    def read(self, index: int) -> bytes | memoryview:
        return self.source.read(int(self.rows[index]))

    def first(self, count: int) -> "Pictures":
        return dataclasses.replace(self, rows=self.rows[:count], labels=self.labels[:count])

    def after(self, count: int) -> "Pictures":
        return dataclasses.replace(self, rows=self.rows[count:], labels=self.labels[count:])

    def without(self, broken: Sequence[int]) -> "Pictures":
        """All but the images at these places; the order of the others stays."""
        left = np.delete(np.arange(len(self.labels)), broken)
        return dataclasses.replace(self, rows=self.rows[left], labels=self.labels[left])

    def with_labels(self, labels: np.ndarray) -> "Pictures":
        return dataclasses.replace(self, labels=labels)


def here(work: Callable[[], Any]) -> Any:
    """What `work` gives."""
    return work()


@dataclass(frozen=True)
class Reading:
    """How encoded images are read: execution, like the device, and no part of a spec.

    workers: threads that decode (None: one for each processor that this process may use).
    skip_broken: leave out images that cannot be decoded, instead of failing at the first. Which
    they are must be known before training begins, so all images are decoded once at every start,
    unless there is a store. image_store: the file of the pre-shrunk store (store.py), which is
    written if it is not there. once: does what one of several processes is to do for all of them,
    and gives each of them its result, a JSON value.
    """

    workers: int | None = None
    skip_broken: bool = False
    image_store: str | Path | None = None
    once: Callable[[Callable[[], Any]], Any] = field(default=here, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise InputError(f"workers is {self.workers}: write 1 or more", "workers")
        if self.image_store is not None and not str(self.image_store):
            message = "image_store has no name: write for example images.arrow"
            raise InputError(message, "image_store")


def shuffled(
    source: Source, rows: np.ndarray, labels: np.ndarray, title: str, workers: int
) -> Pictures:
    """These rows of a source, in an order that is part of the data set and the same for every run:
    folders come sorted by class, and `subsample` takes the first ones."""
    order = rng.generator(0, f"imagenet/{title}").permutation(len(labels))
    return Pictures(source, rows[order], labels[order], workers)


def listing_fingerprint(splits: Sequence[Pictures], note: str = "") -> str:
    """The sha256 over the name, the size in bytes and the label of every image that takes part.

    Not over the bytes: to read all of ImageNet takes as long as an epoch, and every start compares
    this. An image replaced by another of the same name and size goes unnoticed. note: what else
    makes these images other ones.
    """
    digest = hashlib.sha256(f"gammabeta listing 1 {note}\n".encode())
    for title, split in zip(("train", "test"), splits, strict=True):
        digest.update(f"{title} {len(split.labels)}\n".encode())
        for row, label in zip(split.rows.tolist(), split.labels.tolist(), strict=True):
            name, size = split.source.names[row], split.source.sizes[row]
            digest.update(f"{label} {size} {name}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
