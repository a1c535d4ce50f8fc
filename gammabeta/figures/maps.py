"""Feature maps and first filters of the report's network, as mosaics of small pictures."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gammabeta.figures.house import NARROW, WIDE, house_style
from gammabeta.paper.points import Point, View
from gammabeta.probe.read import FeatureMaps, feature_maps

Array = np.ndarray[Any, np.dtype[Any]]

SHOWN = 16  # the first channels of a convolution, four by four: more would be too small to see


def maps_of(view: View) -> dict[str, tuple[Point, list[FeatureMaps]]]:
    """bn and all: the first point trained by Adam at a constant rate of which maps are kept, and
    those of its first run; without a subset that has none."""
    found: dict[str, tuple[Point, list[FeatureMaps]]] = {}
    for subset in ("bn", "all"):
        for point in view.done:
            spec = point.spec
            if (spec.trainable, spec.optimizer, spec.schedule) != (subset, "adam", "constant"):
                continue
            kept = next((maps for run in point.runs if (maps := feature_maps(run))), None)
            if kept:
                found[subset] = point, kept
                break
    return found


def maps_figure(found: Mapping[str, Sequence[FeatureMaps]], width: float = WIDE) -> Figure:
    """The first test image, the first filters, and the maps of each convolution: a row a subset,
    on a phone a column. found: subset -> one FeatureMaps a convolution."""
    places = list(dict.fromkeys(layer.place for layers in found.values() for layer in layers))
    titles = ["test image", "first filters", *(f"convolution {place}" for place in places)]
    narrow = width <= NARROW
    shape = (len(titles), len(found)) if narrow else (len(found), len(titles))
    cell = width / shape[1] * 0.92  # inches: what titles leave
    with house_style():
        figure = Figure(figsize=(width, shape[0] * (cell + 0.12) + 0.3), layout="constrained")
        grid = figure.subplots(*shape, squeeze=False)
        rows = grid.T if narrow else grid
        for axes, (subset, layers) in zip(rows, found.items(), strict=True):
            pictures = _pictures(layers, places)
            for number, (one, title) in enumerate(zip(axes, titles, strict=True)):
                _show(one, pictures[number])
                first = subset == next(iter(found))
                if first:
                    (one.set_ylabel if narrow else one.set_title)(title, fontsize=9)
                if number == 0:
                    (one.set_title if narrow else one.set_ylabel)(subset, fontsize=10)
        return figure


def _pictures(layers: Sequence[FeatureMaps], places: Sequence[int]) -> list[Array | None]:
    """As many as there are titles; None where a run has nothing for one."""
    by_place = {layer.place: layer for layer in layers}
    image = layers[0].images[0]  # (H, W, C)
    pixels = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    opaque = np.full((*pixels.shape[:2], 1), 255, np.uint8)
    first = by_place.get(1)
    filters = None
    if first is not None and first.filters.shape[1] in (1, 3):  # colours, not features
        filters = mosaic(first.filters[:SHOWN].transpose(0, 2, 3, 1))
    return [
        np.concatenate([pixels, opaque], axis=2),
        filters,
        *(
            mosaic(by_place[place].maps[0, :SHOWN, :, :, None]) if place in by_place else None
            for place in places
        ),
    ]


def mosaic(pictures: Array) -> Array:
    """(N, H, W, 1 or 3), each on a scale of its own -> one RGBA picture, uint8, nearly square,
    with transparent lines between them: a page may be light or dark."""
    count, height, width, _ = pictures.shape
    low, high = (end(axis=(1, 2, 3), keepdims=True) for end in (pictures.min, pictures.max))
    scaled = (pictures - low) / np.where(high > low, high - low, 1) * 255
    columns = int(np.ceil(np.sqrt(count)))
    rows = int(np.ceil(count / columns))
    gap = max(1, width // 16)
    whole = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, 4), np.uint8)
    for number, picture in enumerate(np.rint(scaled).astype(np.uint8)):
        top, left = number // columns * (height + gap), number % columns * (width + gap)
        whole[top : top + height, left : left + width, :3] = picture
        whole[top : top + height, left : left + width, 3] = 255
    return whole


def _show(axes: Axes, picture: Array | None) -> None:
    axes.spines[:].set_visible(False)
    axes.set_xticks([])
    axes.set_yticks([])
    if picture is not None:
        axes.imshow(picture, interpolation="none")  # kept as it is, not resampled
