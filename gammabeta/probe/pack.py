"""Small arrays of pictures inside JSON: uint8, compressed, base64."""

import base64
import zlib
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def pack(pixels: Array) -> dict[str, Any]:
    """uint8 of any shape -> {shape, uint8}."""
    data = base64.b64encode(zlib.compress(np.ascontiguousarray(pixels).tobytes(), 9))
    return {"shape": list(pixels.shape), "uint8": data.decode("ascii")}


def unpack(packed: dict[str, Any]) -> Array:
    """The inverse of `pack`."""
    data = zlib.decompress(base64.b64decode(packed["uint8"]))
    return np.frombuffer(data, np.uint8).reshape(packed["shape"])


def pack_scaled(values: Array, inner: int = 2) -> dict[str, Any]:
    """Floats of any shape, of which the last `inner` axes are one picture, each on a scale of its
    own: {shape, uint8, low, high}. A value is kept to 1/510 of its picture's range."""
    exact = values.astype(np.float64)
    axes = tuple(range(values.ndim - inner, values.ndim))
    low, high = exact.min(axis=axes), exact.max(axis=axes)
    span = np.where(high > low, high - low, 1.0)
    above = exact - np.expand_dims(low, axes)
    scaled = np.rint(above / np.expand_dims(span, axes) * 255).astype(np.uint8)
    ends = {
        name: [float(f"{value:.6g}") for value in np.ravel(each)]
        for name, each in (("low", low), ("high", high))
    }
    return pack(scaled) | ends


def unpack_scaled(packed: dict[str, Any]) -> Array:
    """The inverse of `pack_scaled`, up to rounding: float64."""
    pixels = unpack(packed).astype(np.float64)
    count = len(packed["low"])
    low, high = (np.array(packed[end]).reshape(count, 1) for end in ("low", "high"))
    values = low + (high - low) * pixels.reshape(count, -1) / 255
    return np.asarray(values.reshape(packed["shape"]))
