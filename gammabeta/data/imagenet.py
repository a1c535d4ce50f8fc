"""`imagenet`: any set of labelled images in ImageNet's folder layout, any number of classes.

The images stay encoded; engine/stream.py decodes them batch by batch."""

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gammabeta.data.dataset import MEAN, STD, Dataset
from gammabeta.data.decode import SCALES, BrokenImage, Picture
from gammabeta.data.folders import is_image_folder, read_folders
from gammabeta.data.pictures import Pictures, Reading, listing_fingerprint, shuffled
from gammabeta.data.where import existing_folder
from gammabeta.errors import InputError

_PER_TASK = 64  # images
_MANY = 20_000  # images, of which to check each takes long enough to say so


def load_imagenet(data_dir: str | Path | None, reading: Reading) -> Dataset:
    """The images in data_dir, or in $GAMMABETA_DATA; each may also have them in imagenet/.

    The data set's order is a fixed shuffle. Its sha256 is over the names, sizes and labels of the
    images that take part (`listing_fingerprint`). Raises InputError with what to put where; what is
    broken inside an image is found when it is decoded, with `reading.skip_broken` now.
    """
    workers = reading.workers or _processors()
    root = _root(data_dir)
    listed, num_classes, remark = read_folders(root)
    splits = [
        shuffled(source, labels, title, workers)
        for title, (source, labels) in zip(("train", "test"), listed, strict=True)
    ]
    return assemble(splits, num_classes, ["ImageNet folders", remark], reading)


def assemble(
    splits: list[Pictures], num_classes: int, remarks: list[str], reading: Reading
) -> Dataset:
    """Both splits as a data set, without what is broken where the reading says so."""
    skipped: list[str] = []
    if reading.skip_broken:
        count = sum(len(split.labels) for split in splits)
        if count > _MANY:
            warnings.warn(f"checking {count:,} images for broken ones", stacklevel=2)
        for place, split in enumerate(splits):
            broken, by_pillow = check(split)
            skipped += [split.name(index) for index in broken]
            splits[place] = split.without(broken)
            if by_pillow:
                remarks.append(f"{by_pillow:,} {('train', 'test')[place]} images through Pillow")
            if not len(splits[place].labels):
                raise InputError(f"all images like {split.name(0)} are broken: give it others")
    return make_streamed(splits, num_classes, remarks, skipped)


def make_streamed(
    splits: Sequence[Pictures],
    num_classes: int,
    remarks: Sequence[str],
    skipped: Sequence[str],
    note: str = "",
) -> Dataset:
    """note: see `listing_fingerprint`."""
    train, test = splits
    counts = (
        f"{len(train.labels):,} train and {len(test.labels):,} test images of {num_classes} classes"
    )
    left_out = f"{len(skipped):,} left out as broken" if skipped else ""
    source = ", ".join(part for part in (remarks[0], counts, *remarks[1:], left_out) if part)
    sha256 = listing_fingerprint(splits, note)
    return Dataset("imagenet", train, test, num_classes, MEAN, STD, sha256, source, tuple(skipped))


def check(split: Pictures) -> tuple[list[int], int]:
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

    with ThreadPoolExecutor(split.workers) as pool:
        results = list(pool.map(check_some, range(0, count, _PER_TASK)))
    return [index for broken, _ in results for index in broken], sum(each for _, each in results)


def _root(data_dir: str | Path | None) -> Path:
    given = os.environ.get("GAMMABETA_DATA") if data_dir is None else data_dir
    if not given:
        raise InputError(
            "data_dir or GAMMABETA_DATA must name a folder, as imagenet is not downloaded: one "
            f"that holds {CHOICES}",
            "data_dir",
        )
    root = existing_folder(Path(given), "GAMMABETA_DATA" if data_dir is None else "data_dir")
    for folder in (root, root / "imagenet"):
        if is_image_folder(folder):
            return folder
    raise InputError(f"there is no imagenet in {root}: put there {CHOICES}")


CHOICES = "train/<class>/*.JPEG and val/<class>/*.JPEG"


def _processors() -> int:
    """Those that this process may use: a container may have been given fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
