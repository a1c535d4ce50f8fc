"""`imagenet`: any set of labelled images in ImageNet's folder layout, in Parquet or in a
pre-shrunk store; any number of classes.

The images stay encoded; engine/stream.py decodes them batch by batch."""

import contextlib
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from gammabeta.data.dataset import MEAN, STD, Dataset
from gammabeta.data.decode import SCALES, BrokenImage, Picture
from gammabeta.data.folders import FolderSource, is_image_folder, read_folders
from gammabeta.data.image_parquet import count_rows, in_memory, parquet_entries, parquet_files
from gammabeta.data.pictures import (
    Entry,
    Pictures,
    Reading,
    Source,
    listing_fingerprint,
    shuffled,
)
from gammabeta.data.where import existing_folder
from gammabeta.errors import InputError

_CHOICES = (
    "train/<class>/*.JPEG and val/<class>/*.JPEG, or train-*.parquet and validation-*.parquet"
)
_ORIGIN = {True: "ImageNet folders", False: "ImageNet Parquet"}
_TITLES = ("train", "test")
_PER_TASK = 64  # images
_MANY = 20_000  # images, of which to check each takes long enough to say so


def load_imagenet(data_dir: str | Path | None, reading: Reading, image_size: int = 224) -> Dataset:
    """The images in data_dir, or in $GAMMABETA_DATA; each may also have them in imagenet/.

    image_size: what a store that has to be written is for. The data set's order is a fixed shuffle.
    Its sha256 is over the names, sizes and labels of the images that take part, see
    `listing_fingerprint`. Raises InputError with what to put where; what is broken inside an image
    is found when it is decoded, with `reading.skip_broken` or a store now.
    """
    workers = reading.workers or processors()
    if reading.image_store is not None:
        return _from_store(Path(reading.image_store), data_dir, reading, image_size, workers)
    found = _find(data_dir)
    if isinstance(found, Path):
        listed: Sequence[tuple[Source, np.ndarray]] = read_folders(found)
    else:
        listed = in_memory(found)
    splits = [
        shuffled(source, np.arange(len(labels)), labels, title, workers)
        for title, (source, labels) in zip(_TITLES, listed, strict=True)
    ]
    remarks, skipped = [_ORIGIN[isinstance(found, Path)]], []
    if reading.skip_broken:
        # Of several processes one checks, with the threads of all of them.
        checked = reading.once(partial(_check_all, splits, reading.workers or processors(1)))
        for place, (split, (broken, by_pillow)) in enumerate(zip(splits, checked, strict=True)):
            skipped += [split.name(index) for index in broken]
            splits[place] = split.without(broken)
            if by_pillow:
                remarks.append(f"{by_pillow:,} {_TITLES[place]} images through Pillow")
    return _dataset(splits, remarks, skipped)


def count_images(data_dir: str | Path) -> tuple[int, int]:
    """How many training and test images are in data_dir, by their list: no image is read. Raises
    InputError as `load_imagenet`."""
    found = _find(data_dir)
    if isinstance(found, Path):
        train, test = (len(labels) for _, labels in read_folders(found))
    else:
        train, test = count_rows(found)
    return train, test


def _from_store(
    path: Path, data_dir: str | Path | None, reading: Reading, image_size: int, workers: int
) -> Dataset:
    # Here, because it needs torch, and reading images does not.
    from gammabeta.data.crops import test_resize
    from gammabeta.data.store import QUALITY, StoreSource

    short = test_resize(image_size)
    # Of two folders with one store the second would otherwise be silently the first.
    origin = None if data_dir is None else str(Path(data_dir).expanduser().resolve())
    given = os.environ.get("GAMMABETA_DATA")
    if data_dir is None and given:  # which may hold other data sets only
        with contextlib.suppress(InputError):
            _find(None)
            origin = str(Path(given).expanduser().resolve())
    reading.once(partial(_make_store, path, data_dir, reading, short, origin or ""))
    store = StoreSource(path)
    if store.short < short:
        raise InputError(
            f"{path} holds images shrunk to {store.short} pixels, and image_size {image_size} "
            f"needs {short}: name another file",
            "image_store",
        )
    if origin and store.origin and origin != store.origin:
        raise InputError(
            f"{path} was made from {store.origin}, not from {origin}: name another file, or leave "
            "the data folder out",
            "image_store",
        )
    broken = [store.names[row] for row in np.flatnonzero(store.broken)]
    if broken and not reading.skip_broken:
        raise InputError(
            f"{path} was made without {len(broken):,} broken images such as {broken[0]}: write "
            "--skip-broken (in Python skip_broken in Reading), or name another file",
            "image_store",
        )
    splits = []
    for number, title in enumerate(_TITLES):
        rows = np.flatnonzero(store.splits == number)
        every = shuffled(store, rows, store.labels[rows], title, workers)
        splits.append(every.without(np.flatnonzero(store.broken[every.rows]).tolist()))
    shrinking = f"shrunk to {store.short} pixels as JPEG {QUALITY}"
    by_pillow = f"{store.by_pillow.sum():,} of them once through Pillow"
    remarks = ["ImageNet store", shrinking, by_pillow if store.by_pillow.any() else ""]
    return _dataset(splits, remarks, broken, shrinking)


def _make_store(
    path: Path, data_dir: str | Path | None, reading: Reading, short: int, origin: str
) -> None:
    """Where there is none."""
    from gammabeta.data.store import write_store

    if path.exists():
        return
    found = _find(data_dir)
    if isinstance(found, Path):
        listed = read_folders(found)
        _say_if_long("shrinking", sum(len(labels) for _, labels in listed))
        entries = _folder_entries(listed)
    else:
        entries = parquet_entries(found)
    workers = reading.workers or processors(1)
    write_store(
        path, entries, short=short, origin=origin, workers=workers, skip=reading.skip_broken
    )


def _dataset(
    splits: Sequence[Pictures], remarks: Sequence[str], skipped: Sequence[str], note: str = ""
) -> Dataset:
    """Both splits as a data set. note: see `listing_fingerprint`."""
    train, test = splits
    if not (len(train.labels) and len(test.labels)):
        raise InputError(
            "no training image or no test image is left: look for what is wrong with, for example, "
            + (skipped[0] if skipped else "the data folder")
        )
    num_classes = 1 + int(max(train.labels.max(), test.labels.max()))
    lacking = num_classes - len(np.unique(test.labels))
    counts = (
        f"{len(train.labels):,} train and {len(test.labels):,} test images of {num_classes} classes"
    )
    missing = f"{lacking} of which have no test images" if lacking else ""
    left_out = f"{len(skipped):,} left out as broken" if skipped else ""
    parts = (remarks[0], counts, missing, *remarks[1:], left_out)
    source = ", ".join(part for part in parts if part)
    sha256 = listing_fingerprint(splits, note)
    return Dataset("imagenet", train, test, num_classes, MEAN, STD, sha256, source, tuple(skipped))


def _folder_entries(listed: Sequence[tuple[FolderSource, np.ndarray]]) -> Iterator[Entry]:
    for split, (source, labels) in enumerate(listed):
        for row, (name, label) in enumerate(zip(source.names, labels.tolist(), strict=True)):
            yield Entry(split, name, label, partial(source.read, row))


def _say_if_long(doing: str, count: int) -> None:
    if count > _MANY:
        warnings.warn(f"{doing} {count:,} images, which takes a while", stacklevel=3)


def _check_all(splits: Sequence[Pictures], workers: int) -> list[tuple[list[int], int]]:
    _say_if_long("checking", sum(len(split.labels) for split in splits))
    return [check(split, workers) for split in splits]


def check(split: Pictures, workers: int) -> tuple[list[int], int]:
    """Decode every image: the places of those that cannot be, and how many need Pillow."""
    count = len(split.labels)

    def check_some(start: int) -> tuple[list[int], int]:
        broken, by_pillow = [], 0
        for index in range(start, min(start + _PER_TASK, count)):
            try:
                picture = Picture(split.read(index))
                # The smallest scale: a fault in the file shows at each, and this is the fastest.
                picture.pixels(SCALES[0])
                by_pillow += picture.by_pillow
            except (BrokenImage, OSError):
                broken.append(index)
        return broken, by_pillow

    with ThreadPoolExecutor(workers) as pool:
        results = list(pool.map(check_some, range(0, count, _PER_TASK)))
    return [index for broken, _ in results for index in broken], sum(each for _, each in results)


def _find(data_dir: str | Path | None) -> Path | tuple[list[Path], list[Path]]:
    """The folder that holds train/ and val/, or Parquet files of both splits."""
    given = os.environ.get("GAMMABETA_DATA") if data_dir is None else data_dir
    if not given:
        raise InputError(
            "data_dir or GAMMABETA_DATA must name a folder, as imagenet is not downloaded: one "
            f"that holds {_CHOICES}",
            "data_dir",
        )
    root = existing_folder(Path(given), "GAMMABETA_DATA" if data_dir is None else "data_dir")
    for folder in (root, root / "imagenet"):
        if is_image_folder(folder):
            return folder
        for place in (folder, folder / "data"):  # where the Hugging Face hub has them
            files = parquet_files(place)
            if files is not None:
                return files
    raise InputError(f"there is no imagenet in {root}: put there {_CHOICES}")


def processors(beside: int | None = None) -> int:
    """Those that this process may use: a container may have been given fewer than there are, and
    torchrun's processes on one machine, `beside` of them, share them."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    if beside is None:
        given = os.environ.get("LOCAL_WORLD_SIZE", "1")
        beside = int(given) if given.isdecimal() else 1
    return max(1, count // max(1, beside))
