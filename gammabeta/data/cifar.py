"""Finds CIFAR-10 or CIFAR-100 under a folder, in any form it is commonly kept in.

The nearest folder wins; of two equally deep ones that with the data set's own name, then the first
by name; within a folder Python batches, binary batches, their archives, then Parquet: the authors'
files hold the exact pixels, Parquet may hold JPEG. What is found but broken is an error, never a
reason to take something else.
"""

import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from gammabeta.cache import cache_folder
from gammabeta.data import batches, parquet
from gammabeta.data.dataset import Dataset
from gammabeta.data.download import download, is_offline
from gammabeta.data.where import existing_folder
from gammabeta.errors import InputError

_CLASSES = {"cifar10": 10, "cifar100": 100}
_DEPTH = 4  # folders below the given one; the hub's own cache needs all of them


def load_cifar(name: str, data_dir: str | Path | None = None) -> Dataset:
    """`cifar10` or `cifar100` (fine labels) from data_dir, $GAMMABETA_DATA or the cache folder.

    A download is tried only where data_dir is not given, into the folder that was searched instead.
    Raises InputError where nothing is found or what is found is damaged.
    """
    if data_dir is not None:
        folder = existing_folder(Path(data_dir), "data_dir")
        found = _search(name, folder)
        if found is None:
            raise InputError(f"there is no {name} in {folder}: put there {_choices(name)}")
        return found
    root: Path | None = None
    problem = "downloads are switched off by GAMMABETA_OFFLINE"
    try:
        given = os.environ.get("GAMMABETA_DATA")
        root = existing_folder(Path(given), "GAMMABETA_DATA") if given else cache_folder()
        found = _search(name, root) if root.is_dir() else None
        if found is None and not is_offline():
            download(name, root)
            found = _search(name, root)
    except OSError as error:
        problem = f"the download failed: {' '.join(str(error).split())[:120]}"
        # Another process may have finished the same download in the meantime.
        found = _search(name, root) if root is not None and root.is_dir() else None
    if found is None:
        raise InputError(
            f"data_dir or GAMMABETA_DATA must name a folder, as there is no {name} on this machine "
            f"and {problem}: put there {_choices(name)}",
            "data_dir",
        )
    return found


def _choices(name: str) -> str:
    layouts = batches.LAYOUTS[name]
    options = [layout.archive for layout in layouts] + [f"{layout.folder}/" for layout in layouts]
    return ", ".join(options) + ", or train-*.parquet and test-*.parquet side by side"


def _search(name: str, root: Path) -> Dataset | None:
    complaint: InputError | None = None
    for folder, names in _folders(name, root):
        try:
            for read in _candidates(name, folder, names):
                return read()
        except _NotThis as error:
            complaint = complaint or InputError(str(error))
    if complaint is not None:
        raise complaint
    return None


class _NotThis(InputError):
    """Parquet files of something else: look further, and say so only if nothing better comes."""


def _candidates(name: str, folder: Path, names: set[str]) -> Iterator[Callable[[], Dataset]]:
    layouts = batches.LAYOUTS[name]
    for layout in layouts:
        if batches.is_batch_folder(layout, folder, names):
            yield partial(batches.read_folder, layout, folder)
    for layout in layouts:
        if layout.archive in names:
            yield partial(batches.read_archive, layout, folder / layout.archive)
    files = parquet.shards(names)
    if all(files.values()):
        try:
            parquet.check_schema(folder / files["train"][0], name)
        except InputError as error:
            raise _NotThis(str(error)) from None
        yield partial(parquet.read_parquet, folder, files, name, _CLASSES[name])


def _folders(name: str, root: Path) -> Iterator[tuple[Path, set[str]]]:
    """`root` and its subfolders with the files in each, level by level, best name first.

    A folder named after the other CIFAR is left out; one that cannot be read is passed over.
    """
    level = [root]
    for _ in range(_DEPTH + 1):
        following = []
        for folder in level:
            try:
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError:
                continue
            yield folder, {entry.name for entry in entries if _is(entry.is_file)}
            following += [
                folder / entry.name
                for entry in entries
                if _is(entry.is_dir) and not entry.name.startswith(".")
            ]
        ranked = [(_mentioned(folder.relative_to(root)), folder) for folder in following]
        level = [
            folder
            for mentioned, folder in sorted(ranked, key=lambda each: (name not in each[0], each[1]))
            if not mentioned or name in mentioned
        ]


def _mentioned(path: Path) -> set[str]:
    """The data sets that a path names: cifar-10-batches-py -> {"cifar10"}."""
    return {f"cifar{number}" for number in re.findall(r"cifar[-_]?(100?)(?!\d)", str(path).lower())}


def _is(kind: Callable[[], bool]) -> bool:
    """Whether an entry of a folder is of that kind; a link that leads in a circle is of none."""
    try:
        return kind()
    except OSError:
        return False
