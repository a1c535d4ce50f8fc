"""CIFAR as its authors publish it: Python or binary batches, unpacked or still in the .tar.gz.

An archive is read from start to end in memory; nothing is ever extracted to disk.
"""

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from gammabeta.data.dataset import Dataset, Split, check_labels, make_dataset
from gammabeta.data.pickles import read_pickle
from gammabeta.errors import InputError

_PIXELS = 3 * 32 * 32
_LARGEST = 1 << 29  # bytes of one batch; the largest real one (CIFAR-100, train) has 155 million


@dataclass(frozen=True)
class Layout:
    """One published form. label_key: of a Python batch; label_bytes: before the pixels of a binary
    record, the last of which is the label."""

    name: str
    num_classes: int
    folder: str
    archive: str
    train: tuple[str, ...]
    test: str
    label_key: str = ""
    label_bytes: int = 0

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.train, self.test)

    @property
    def title(self) -> str:
        return "Python batches" if self.label_key else "binary batches"


_TEN = tuple(f"data_batch_{number}" for number in range(1, 6))
LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "cifar10": (
        Layout(
            "cifar10", 10, "cifar-10-batches-py", "cifar-10-python.tar.gz",
            _TEN, "test_batch", label_key="labels",
        ),
        Layout(
            "cifar10", 10, "cifar-10-batches-bin", "cifar-10-binary.tar.gz",
            tuple(f"{name}.bin" for name in _TEN), "test_batch.bin", label_bytes=1,
        ),
    ),
    "cifar100": (
        Layout(
            "cifar100", 100, "cifar-100-python", "cifar-100-python.tar.gz",
            ("train",), "test", label_key="fine_labels",
        ),
        Layout(
            "cifar100", 100, "cifar-100-binary", "cifar-100-binary.tar.gz",
            ("train.bin",), "test.bin", label_bytes=2,
        ),
    ),
}  # fmt: skip


def is_batch_folder(layout: Layout, folder: Path, names: set[str]) -> bool:
    """Whether a folder holding these files is meant as this layout, complete or not."""
    present = names.intersection(layout.files)
    return len(present) > 1 or (bool(present) and folder.name == layout.folder)


def read_folder(layout: Layout, folder: Path) -> Dataset:
    """The batches unpacked in `folder`. Raises InputError, naming the file, for a bad one."""
    splits: dict[str, Split] = {}
    for name in layout.files:
        path = folder / name
        if not path.is_file():
            continue
        try:
            _check_size(path.stat().st_size, str(path))
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
        splits[name] = _read_batch(layout, content, str(path))
    return _join(layout, splits, folder, layout.title)


def read_archive(layout: Layout, path: Path) -> Dataset:
    """The batches inside a .tar.gz. Raises InputError, naming archive and member, for a bad one."""
    splits: dict[str, Split] = {}
    for name, content in _members(layout, path):
        splits[name] = _read_batch(layout, content, f"{name} in {path}")
    return _join(layout, splits, path, f"{layout.title} in {path.name}")


def _members(layout: Layout, path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with gzip.open(path) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                # Links are left out: only what is stored here is read.
                if name not in layout.files or not member.isreg():
                    continue
                _check_size(member.size, f"{name} in {path}")
                file = archive.extractfile(member)
                content = file.read() if file is not None else b""
                yield name, content
            while stream.read(1 << 20):  # gzip compares its checksum at the very end only
                pass
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is no complete .tar.gz ({error}): download it again") from None


def _check_size(size: int, where: str) -> None:
    if size > _LARGEST:
        raise InputError(f"{where} has {size:,} bytes, too many for a CIFAR batch: download again")


def _join(layout: Layout, splits: dict[str, Split], where: Path, origin: str) -> Dataset:
    missing = [name for name in layout.files if name not in splits]
    if missing:
        raise InputError(
            f"{where} lacks {', '.join(missing)}: take all of {', '.join(layout.files)} "
            f"from {layout.archive}"
        )
    train = [splits[name] for name in layout.train]
    for name, split in zip(layout.train, train, strict=True):
        if len(split.labels) != len(train[0].labels):  # cut between two records, say
            counts = f"{len(split.labels):,} images and {layout.train[0]} {len(train[0].labels):,}"
            raise InputError(f"{where}: {name} has {counts}: take all from {layout.archive}")
    joined = Split(
        np.concatenate([split.images for split in train]),
        np.concatenate([split.labels for split in train]),
    )
    return make_dataset(
        layout.name, joined, splits[layout.test], num_classes=layout.num_classes, origin=origin
    )


def _read_batch(layout: Layout, content: bytes, where: str) -> Split:
    if layout.label_key:
        pixels, labels = _python_batch(layout, content, where)
    else:
        pixels, labels = _binary_batch(layout, content, where)
    check_labels(where, labels, layout.num_classes)
    images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # N C H W -> N H W C
    return Split(np.ascontiguousarray(images), labels)


def _python_batch(layout: Layout, content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    batch = read_pickle(content, where)
    for key in ("data", layout.label_key):
        if key not in batch:
            shown = ", ".join(ascii(known)[1:-1] for known in list(batch)[:10]) or "none"
            raise InputError(
                f"{where} has no key {key} (its keys: {shown}): is this a batch of {layout.name}?"
            )
    pixels, labels = batch["data"], _labels(batch[layout.label_key], where)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
        raise InputError(f"{where}: data must be an array of uint8")
    if pixels.shape != (len(labels), _PIXELS):
        raise InputError(
            f"{where}: data has the shape {pixels.shape}, expected ({len(labels)}, {_PIXELS}) "
            f"for {len(labels)} labels"
        )
    return pixels, labels


def _labels(values: Any, where: str) -> np.ndarray:
    if isinstance(values, np.ndarray) and values.ndim == 1:
        return values.astype(np.int64)
    if isinstance(values, list) and all(type(value) is int for value in values):
        try:
            return np.array(values, dtype=np.int64)
        except OverflowError:
            pass
    raise InputError(f"{where}: the labels must be a list of whole numbers")


def _binary_batch(layout: Layout, content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    record = layout.label_bytes + _PIXELS
    if not content or len(content) % record:
        raise InputError(
            f"{where} has {len(content):,} bytes, which is no multiple of {record} (one image): "
            f"take it from {layout.archive} again"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, record)
    labels = records[:, layout.label_bytes - 1].astype(np.int64)
    return records[:, layout.label_bytes :], labels
