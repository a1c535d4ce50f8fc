"""ImageNet in Parquet, as hubs keep it: encoded images and labels in train-*.parquet and
validation-*.parquet (or val-*, or test-*), side by side."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gammabeta.data.dataset import check_labels
from gammabeta.data.parquet import check_complete, check_schema, read_rows, unreadable
from gammabeta.data.pictures import Entry
from gammabeta.errors import InputError

_SPLITS = (("train",), ("validation", "val", "test"))
_ROWS = 256  # read at once
_CLASSES = 2**31


class MemorySource:
    """Encoded images in memory. Rows of a Parquet file cannot be read one by one in any order."""

    def __init__(self, entries: list[Entry]) -> None:
        self.names = [entry.name for entry in entries]
        self._contents = [entry.read() for entry in entries]
        self.sizes = [len(content) for content in self._contents]

    def read(self, row: int) -> bytes:
        return bytes(self._contents[row])


def parquet_files(folder: Path) -> tuple[list[Path], list[Path]] | None:
    """The files of the training and of the test split in a folder, or None without one of them."""
    names = sorted(path.name for path in folder.glob("*.parquet"))
    found = []
    for words in _SPLITS:
        each = [[n for n in names if re.fullmatch(rf"{word}(-.*)?\.parquet", n)] for word in words]
        found.append(next((files for files in each if files), []))
    if not all(found):
        return None
    for files in found:
        check_complete(folder, files)
    train, test = ([folder / name for name in files] for files in found)
    return train, test


def parquet_entries(files: tuple[list[Path], list[Path]]) -> Iterator[Entry]:
    """Every row, in the order of the files; an entry's name is that of its file and its row.
    Raises InputError for a file that is damaged or has no such columns."""
    for split, paths in enumerate(files):
        for path in paths:
            image, label = check_schema(path, "imagenet")
            try:
                with pq.ParquetFile(path) as file:
                    first = 0
                    for batch in file.iter_batches(_ROWS, columns=[image, label]):
                        table = pa.Table.from_batches([batch])
                        contents, labels = read_rows(path, table, image, label, first)
                        check_labels(str(path), labels, _CLASSES)
                        for row, content in enumerate(contents, first):
                            yield _entry(split, path, row, int(labels[row - first]), content)
                        first += len(contents)
            except (pa.ArrowException, OSError) as error:
                raise unreadable(path, error) from None


def count_rows(files: tuple[list[Path], list[Path]]) -> tuple[int, int]:
    """Rows for training and for testing, as the files' ends say. Raises InputError."""
    counts = [0, 0]
    for split, paths in enumerate(files):
        for path in paths:
            try:
                counts[split] += pq.read_metadata(path).num_rows
            except (OSError, pa.ArrowException) as error:
                raise unreadable(path, error) from None
    return counts[0], counts[1]


def check_memory(files: tuple[list[Path], list[Path]]) -> None:
    """Raise InputError where the files hold more than half of this machine's memory."""
    size = sum(path.stat().st_size for paths in files for path in paths)
    if (
        hasattr(os, "sysconf")
        and size > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2
    ):
        raise InputError(
            f"the Parquet files have {size / 1e9:.0f} GB, too much to be kept in memory: write "
            "image_store=FILE, in Python in Reading, on the command line --image-store FILE",
        )


def in_memory(files: tuple[list[Path], list[Path]]) -> list[tuple[MemorySource, np.ndarray]]:
    """(source, labels) of both splits. Raises InputError."""
    check_memory(files)
    entries = list(parquet_entries(files))
    splits = [[entry for entry in entries if entry.split == number] for number in (0, 1)]
    for paths, split in zip(files, splits, strict=True):
        if not split:
            raise InputError(f"{paths[0]} and its like have no rows: give them some")
    return [
        (MemorySource(split), np.array([entry.label for entry in split], np.int64))
        for split in splits
    ]


def _entry(split: int, path: Path, row: int, label: int, content: bytes) -> Entry:
    return Entry(split, f"{path.name}: row {row}", label, lambda: content)
