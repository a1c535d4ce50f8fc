"""Makers of small data files, in every form that the readers of gammabeta.data know."""

import io
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg
from PIL import Image

Arrays = tuple[np.ndarray, np.ndarray]  # images uint8 (N, 32, 32, 3), labels int64 (N,)


def arrays(count: int, classes: int, seed: int = 0) -> Arrays:
    """Random images and labels; the last label is the highest class."""
    draws = np.random.default_rng(seed)
    images = draws.integers(0, 256, size=(count, 32, 32, 3), dtype=np.uint8)
    labels = draws.integers(0, classes, size=count)
    labels[-1] = classes - 1
    return images, labels


def batches(name: str, train: Arrays, test: Arrays) -> dict[str, Arrays]:
    """The published file names (without .bin) and what belongs into each."""
    if name == "cifar100":
        return {"train": train, "test": test}
    parts = zip(np.array_split(train[0], 5), np.array_split(train[1], 5), strict=True)
    named = {f"data_batch_{number}": part for number, part in enumerate(parts, start=1)}
    return {**named, "test_batch": test}


def rows(images: np.ndarray) -> np.ndarray:
    """N H W C -> (N, 3072), one channel after the other."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)


def write_python(folder: Path, name: str, train: Arrays, test: Arrays, protocol: int = 4) -> Path:
    """protocol 2 is written as Python 2 did; higher ones by this Python, with text keys."""
    folder.mkdir(parents=True, exist_ok=True)
    key = "labels" if name == "cifar10" else "fine_labels"
    for file, (images, labels) in batches(name, train, test).items():
        if protocol == 2:
            content = python2_pickle(rows(images), labels.tolist(), key)
        else:
            batch = {"batch_label": file, key: labels.tolist(), "data": rows(images)}
            content = pickle.dumps(batch, protocol)
        (folder / file).write_bytes(content)
    return folder


def python2_pickle(data: np.ndarray, labels: list[int], key: str) -> bytes:
    """What cPickle of Python 2 wrote for {key: labels, "data": data}, as in the real archives."""

    def text(value: bytes) -> bytes:
        if len(value) < 256:
            return b"U" + bytes([len(value)]) + value
        return b"T" + struct.pack("<i", len(value)) + value

    minus_one = b"J\xff\xff\xff\xff"
    dtype = b"cnumpy\ndtype\nq\x05U\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN"
    dtype += minus_one + minus_one + b"K\x00tb"
    shape = b"".join(b"J" + struct.pack("<i", size) for size in data.shape) + b"\x86"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87R"
        b"(K\x01" + shape + dtype + b"\x89" + text(data.tobytes()) + b"tb"
    )
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}q\x01(" + text(key.encode()) + numbers + text(b"data") + array + b"u."


def write_binary(folder: Path, name: str, train: Arrays, test: Arrays) -> Path:
    """CIFAR-100 records start with a coarse label, here always 7."""
    folder.mkdir(parents=True, exist_ok=True)
    coarse = b"\x07" if name == "cifar100" else b""
    for file, (images, labels) in batches(name, train, test).items():
        pairs = zip(labels, rows(images), strict=True)
        content = b"".join(coarse + bytes([label]) + row.tobytes() for label, row in pairs)
        (folder / f"{file}.bin").write_bytes(content)
    return folder


def write_archive(path: Path, folder: Path) -> Path:
    """Everything in `folder` as a .tar.gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, arcname=folder.name)
    return path


def encode(image: np.ndarray, encoding: str = "PNG") -> bytes:
    """One image of any size as the bytes of a file."""
    if encoding == "JPEG":
        return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=90))
    content = io.BytesIO()
    Image.fromarray(image).save(content, encoding)
    return content.getvalue()


def write_table(path: Path, contents: list[Any], labels: Any, **options: Any) -> Path:
    """One Parquet file. options: image and label (the column names), plain (no struct), extra."""
    plain, extra = options.get("plain", False), options.get("extra", {})
    pictures: Any = contents
    if not plain:
        pictures = [None if each is None else {"bytes": each, "path": None} for each in contents]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        pictures = pa.array(pictures, kind)
    columns = {options.get("image", "img"): pictures, options.get("label", "label"): labels}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({**columns, **extra}), path)
    return path


def write_parquet(
    folder: Path,
    train: Arrays,
    test: Arrays,
    *,
    shards: int = 1,
    encoding: str = "PNG",
    **options: Any,
) -> Path:
    """The layout of the hub; the training images in this many shards."""
    for split, (images, labels), count in (("train", train, shards), ("test", test, 1)):
        parts = zip(np.array_split(images, count), np.array_split(labels, count), strict=True)
        for shard, (some, their_labels) in enumerate(parts):
            path = folder / f"{split}-{shard:05d}-of-{count:05d}.parquet"
            write_table(path, [encode(image, encoding) for image in some], their_labels, **options)
    return folder
