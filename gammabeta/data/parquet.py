"""CIFAR in the layout of the Hugging Face hub: encoded images and labels in Parquet files.

Everything is decoded once, into memory. JPEG goes through simplejpeg, PNG through Pillow; the
pixels of a JPEG copy are not quite those of the original, so `source` says which it was.
"""

import io
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from gammabeta.data.dataset import IMAGE_SHAPE, Dataset, Split, check_labels, make_dataset
from gammabeta.data.decode import simplejpeg
from gammabeta.errors import InputError

IMAGE_COLUMNS = ("img", "image", "pixel_values", "jpg", "png")
LABEL_COLUMNS = ("label", "labels", "fine_label", "cls")
_ROWS_PER_TASK = 500


def shards(names: set[str]) -> dict[str, list[str]]:
    """The train and test files among these names, in the order of their shards."""
    return {
        split: sorted(name for name in names if re.fullmatch(rf"{split}(-.*)?\.parquet", name))
        for split in ("train", "test")
    }


def check_schema(path: Path, name: str) -> tuple[str, str]:
    """The image and the label column of a file of data set `name`; InputError without them."""
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise unreadable(path, error) from None
    # A name that occurs twice names nothing.
    columns = {column for column in schema.names if schema.names.count(column) == 1}
    if name == "cifar10" and "fine_label" in columns:
        raise InputError(f"{path} has fine labels, so it is CIFAR-100: write cifar100")
    wanted = {
        "image": IMAGE_COLUMNS,
        "label": ("fine_label", *LABEL_COLUMNS) if name == "cifar100" else LABEL_COLUMNS,
    }
    found = {}
    for kind, known in wanted.items():
        here = [column for column in known if column in columns]
        if not here:
            shown = " ".join(", ".join(schema.names[:20]).split()) or "none"
            raise InputError(
                f"{path} has no {kind} column (its columns: {shown}): name it {' or '.join(known)}"
            )
        found[kind] = here[0]
    _check_types(path, schema, found["image"], found["label"])
    return found["image"], found["label"]


def _check_types(path: Path, schema: Any, image: str, label: str) -> None:
    kind = schema.field(image).type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise InputError(
            f"{path}: column {image} must hold encoded images, as binary or struct{{bytes, path}}"
        )
    if not pa.types.is_integer(schema.field(label).type):
        raise InputError(f"{path}: column {label} must hold whole numbers")


def read_parquet(folder: Path, names: dict[str, list[str]], name: str, classes: int) -> Dataset:
    """Both splits from the files of `folder` that `shards` found. Raises InputError."""
    splits, encodings = {}, set()
    saw_fine_labels = False
    for split, files in names.items():
        check_complete(folder, files)
        parts = []
        for file in files:
            path = folder / file
            columns = check_schema(path, name)
            part, found = _read_file(path, *columns, classes)
            parts.append(part)
            encodings |= found
            saw_fine_labels |= columns[1] == "fine_label"
        splits[split] = Split(
            np.concatenate([part.images for part in parts]),
            np.concatenate([part.labels for part in parts]),
        )
    highest = max(int(split.labels.max(initial=-1)) for split in splits.values())
    if name == "cifar100" and not saw_fine_labels and 0 <= highest < 10:
        raise InputError(f"{folder} has labels up to {highest} only: for CIFAR-10 write cifar10")
    return make_dataset(
        name,
        splits["train"],
        splits["test"],
        num_classes=classes,
        origin="Parquet",
        encoding=" and ".join(sorted(encodings)),
    )


def check_complete(folder: Path, files: list[str]) -> None:
    """train-00000-of-00002.parquet says itself that there is a second one, and only a second."""
    numbers = [re.search(r"-(\d+)-of-(\d+)(-[0-9a-f]+)?\.parquet$", file) for file in files]
    if not any(numbers):
        return
    have = [(int(each[1]), int(each[2])) if each else (0, 0) for each in numbers]
    total = max(count for _, count in have)
    if len(set(have)) < len(have) or any(count != total for _, count in have):
        raise InputError(f"{folder} mixes {files[0]} with shards of another set: keep one set")
    if len(have) != total:
        missing = min(set(range(len(have) + 1)) - {shard for shard, _ in have})
        raise InputError(
            f"{folder} has {len(have)} of {total} shards beside {files[0]}: "
            f"put shard {missing:05d} and all others there"
        )


def _read_file(path: Path, image: str, label: str, classes: int) -> tuple[Split, set[str]]:
    try:
        table = pq.read_table(path, columns=[image, label], partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise unreadable(path, error) from None
    contents, values = read_rows(path, table, image, label)
    check_labels(str(path), values, classes)
    images, encodings = _decode_all(path, contents)
    return Split(images, values), encodings


def read_rows(
    path: Path, table: Any, image: str, label: str, first: int = 0
) -> tuple[list[bytes], np.ndarray]:
    """The encoded images and the labels, int64 (N,), of a table that begins with row `first`."""
    try:
        pictures = table.column(image).combine_chunks()
        if pa.types.is_struct(pictures.type):
            # Not .field(): that would show the bytes of a row that is null as a whole.
            pictures = pc.struct_field(pictures, "bytes")
        contents = pictures.to_pylist()
        labels = table.column(label).cast(pa.int64())
    except (pa.ArrowException, OSError) as error:
        raise unreadable(path, error) from None
    for title, row in (
        ("image", _first_none(contents)),
        ("label", _first_none(labels.to_pylist())),
    ):
        if row is not None:
            row += first
            raise InputError(f"{path}: row {row} has no {title}: give it one or drop the row")
    return contents, labels.to_numpy().astype(np.int64)


def _first_none(values: list[Any]) -> int | None:
    return values.index(None) if None in values else None


def unreadable(path: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:120]
    return InputError(f"{path} is no complete Parquet file ({reason}): download it again")


def _decode_all(path: Path, contents: list[bytes]) -> tuple[np.ndarray, set[str]]:
    """Threads, because both decoders let go of the interpreter lock while they work."""
    images = np.empty((len(contents), *IMAGE_SHAPE), np.uint8)

    def decode_some(start: int) -> set[str]:
        found = set()
        for row in range(start, min(start + _ROWS_PER_TASK, len(contents))):
            images[row], encoding = _decode(contents[row], f"{path}: row {row}")
            found.add(encoding)
        return found

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        found = pool.map(decode_some, range(0, len(contents), _ROWS_PER_TASK))
        return images, set[str]().union(*found)


def _decode(content: bytes, where: str) -> tuple[np.ndarray, str]:
    """One image as (32, 32, 3), and its format. The size is checked before anything is decoded."""
    try:
        if content.startswith(b"\xff\xd8"):
            height, width = simplejpeg().decode_jpeg_header(content)[:2]
            _check_size(width, height, where)
            return simplejpeg().decode_jpeg(content, "RGB"), "JPEG"
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            _check_size(*image.size, where)
            if image.mode.startswith(("I", "F")):
                raise ValueError("more than 8 bits a channel")
            return np.asarray(image.convert("RGB")), "PNG"
    except InputError:
        raise
    except Exception as error:  # decoders fail in many ways, SyntaxError among them
        reason = " ".join(ascii(str(error))[1:-1].split())[:80]
        raise InputError(
            f"{where} is no image that can be decoded ({reason}): write 8-bit PNG or JPEG"
        ) from None


def _check_size(width: int, height: int, where: str) -> None:
    if (width, height) != (32, 32):
        raise InputError(f"{where} is an image of {width}x{height} pixels: resize it to 32x32")
