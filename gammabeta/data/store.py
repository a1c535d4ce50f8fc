"""The pre-shrunk store: all images of imagenet in one file, small, memory-mapped.

An Arrow file with a row an image. An image whose short side is longer than what test images are
resized to is shrunk to that, with the kernel of crops.py, and encoded as JPEG again; others keep
their bytes. Test images lose no more than that JPEG; small random crops lose resolution, so what
was trained on a store is another run than what was trained on the files: its sha256 differs.
"""

import contextlib
import itertools
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gammabeta.data.crops import shrunk
from gammabeta.data.decode import SCALES, BrokenImage, Picture, simplejpeg
from gammabeta.data.pictures import Entry
from gammabeta.errors import InputError, RunError

QUALITY = 95  # of the JPEGs, with colours at half the resolution as in most photographs
_FORMAT = b"1"
_AT_ONCE = 512  # images in memory while it is written
_SCHEMA = pa.schema(
    [
        ("split", pa.int8()),  # 0 train, 1 test
        ("name", pa.binary()),  # not every file name is text
        ("size", pa.int64()),  # bytes, before
        ("label", pa.int64()),
        ("by_pillow", pa.bool_()),
        ("image", pa.binary()),  # null: it is broken, and was left out
    ]
)


class StoreSource:
    """The rows of a store. splits, labels: int64 (N,). broken: bool (N,). Raises InputError."""

    def __init__(self, path: Path) -> None:
        try:
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
            metadata = table.schema.metadata or {}
            if metadata.get(b"gammabeta images") != _FORMAT:
                raise InputError(f"{path} is no image store: name another file", "image_store")
            self.short = int(metadata[b"short"])
            self.origin = os.fsdecode(metadata[b"origin"])
            self.names = [os.fsdecode(name) for name in table.column("name").to_pylist()]
            self.sizes: list[int] = table.column("size").to_pylist()
            self.splits, self.labels, self.by_pillow = (
                table.column(name).to_numpy() for name in ("split", "label", "by_pillow")
            )
            self.broken = table.column("image").is_null().to_numpy()
            self._chunks = table.column("image").chunks
        except (pa.ArrowException, OSError, KeyError) as error:
            reason = " ".join(str(error).split())[:80]
            raise InputError(
                f"{path} is no image store ({reason}): remove it to have it written anew, or name "
                "another file",
                "image_store",
            ) from None
        self._starts = np.cumsum([0, *(len(chunk) for chunk in self._chunks)])

    def read(self, row: int) -> memoryview:
        chunk = int(np.searchsorted(self._starts, row, side="right")) - 1
        value = self._chunks[chunk][row - int(self._starts[chunk])].as_buffer()
        return memoryview(value).cast("B")  # Arrow's bytes have a sign, which simplejpeg refuses


def write_store(
    path: Path, entries: Iterable[Entry], *, short: int, origin: str, workers: int, skip: bool
) -> None:
    """Write a store, whole or not at all. short: pixels of the short side, at most. origin: where
    the images are from. skip: leave out broken images; else the first is an InputError.

    Raises RunError where it cannot be written.
    """
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} is no folder: make it, or name another", "image_store")
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    metadata = {"gammabeta images": _FORMAT, "short": str(short), "origin": os.fsencode(origin)}
    remaining = iter(entries)
    try:
        with (
            temporary.open("wb") as sink,
            pa.ipc.new_file(sink, _SCHEMA.with_metadata(metadata)) as writer,
            ThreadPoolExecutor(workers) as pool,
        ):
            while some := list(itertools.islice(remaining, _AT_ONCE)):
                rows = list(pool.map(lambda entry: _row(entry, short, skip), some))
                writer.write_batch(pa.RecordBatch.from_pylist(rows, _SCHEMA))
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:  # an interrupt must not leave half a store either
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            reason = error.strerror or error
            raise RunError(f"could not write the image store {path} ({reason})") from error
        raise


def _row(entry: Entry, short: int, skip: bool) -> dict[str, Any]:
    content: bytes | memoryview = b""
    image: bytes | None = None
    by_pillow = False
    try:
        content = entry.read()
        picture = Picture(content)
        image = bytes(content)
        if min(picture.height, picture.width) > short:
            image = _encoded(shrunk(picture, short))
        else:
            picture.pixels(SCALES[0])  # is it whole?
            if picture.by_pillow:
                image = _encoded(picture.pixels())
        by_pillow = picture.by_pillow
    except (BrokenImage, OSError) as error:
        if not skip:
            raise InputError(
                f"{entry.name} is no image that can be decoded ({error}): repair it, or write "
                "--skip-broken (in Python skip_broken in Reading) to leave such images out"
            ) from None
        image = None
    values = (entry.split, os.fsencode(entry.name), len(content), entry.label, by_pillow, image)
    return dict(zip(_SCHEMA.names, values, strict=True))


def _encoded(pixels: np.ndarray) -> bytes:
    contiguous = np.ascontiguousarray(pixels)
    encoded: bytes = simplejpeg().encode_jpeg(contiguous, QUALITY, "RGB", colorsubsampling="420")
    return encoded
