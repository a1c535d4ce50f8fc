"""Feature maps and filters of the report's network, as mosaics of small pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from gammabeta.figures.chart import Chart
from gammabeta.figures.house import NARROW, WIDE, house_style
from gammabeta.paper.points import Point, View
from gammabeta.probe.pack import pack
from gammabeta.probe.read import FeatureMaps, feature_maps

Array = np.ndarray[Any, np.dtype[Any]]

IMAGES = 2  # of the eight that a probe keeps
_ROWS = IMAGES + 1  # and one of filters
MAPS = 9  # the first channels of a convolution, three by three: more would be too small to see
FILTERS = 16  # the first of them, and over features of their inputs


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


@dataclass(frozen=True)
class Shown:
    """One picture of the figure. low, high: what is black and white in each of its parts."""

    title: str
    pixels: Array
    low: list[float]
    high: list[float]


def maps_figure(found: Mapping[str, Sequence[FeatureMaps]], width: float = WIDE) -> Chart:
    """Two test images with the maps that each convolution makes of them, and its filters: for each
    subset three rows, on a phone a column. found: subset -> one FeatureMaps a convolution. What is
    drawn is in about["pictures"], its pixels packed as in `gammabeta.probe.pack`."""
    places = list(dict.fromkeys(layer.place for layers in found.values() for layer in layers))
    narrow = width <= NARROW
    columns = 1 + len(places)
    shape = (columns * _ROWS - 1, len(found)) if narrow else (len(found) * _ROWS, columns)
    cell = width / shape[1] * (0.92 if narrow else 0.8)  # inches: what titles leave
    with house_style():
        figure = Chart(figsize=(width, shape[0] * (cell + 0.12) + 0.3), layout="constrained")
        grid = figure.subplots(*shape, squeeze=False)
        figure.about["pictures"] = []
        for number, (subset, layers) in enumerate(found.items()):
            pictures = _pictures(layers, places)
            if narrow:  # in a column there is no need of an empty cell beside the filters
                cells, pictures = list(grid[:, number]), [each for each in pictures if each]
            else:
                cells = list(grid[number * _ROWS : (number + 1) * _ROWS].flat)
            for place, (axes, picture) in enumerate(zip(cells, pictures, strict=False)):
                _show(axes, picture)
                if picture is not None:
                    if not narrow or number == 0:
                        (axes.set_ylabel if narrow else axes.set_title)(picture.title, fontsize=9)
                    figure.about["pictures"].append(
                        {"subset": subset, "title": picture.title, "low": picture.low,
                         "high": picture.high} | pack(picture.pixels)
                    )  # fmt: skip
                if place == 0:
                    (axes.set_title if narrow else axes.set_ylabel)(subset, fontsize=10)
            for axes in cells[len(pictures) :]:
                axes.set_axis_off()
        return figure


def _pictures(layers: Sequence[FeatureMaps], places: Sequence[int]) -> list[Shown | None]:
    """Row by row; None where a run has nothing for a place."""
    by_place = {layer.place: layer for layer in layers}
    rows: list[Shown | None] = []
    for number in range(min(IMAGES, len(layers[0].images))):
        image = layers[0].images[number]  # (H, W, C)
        pixels = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
        opaque = np.full((*pixels.shape[:2], 1), 255, np.uint8)
        rows.append(Shown("test image", np.concatenate([pixels, opaque], axis=2), [0], [255]))
        for place in places:
            layer = by_place.get(place)
            title = f"convolution {place}"
            maps = None if layer is None else layer.maps[number, :MAPS, :, :, None]
            rows.append(None if maps is None else _mosaic(title, maps))
    rows.append(None)
    for place in places:
        layer = by_place.get(place)
        rows.append(None if layer is None else _filters(f"filters of {place}", layer.filters))
    return rows


def _filters(title: str, filters: Array) -> Shown:
    """filters: (C, C in, height, width). Over colours a filter is one picture in colour, over
    features a row of pictures, one an input."""
    shown = filters[:FILTERS]
    if shown.shape[1] in (1, 3):
        return _mosaic(title, shown.transpose(0, 2, 3, 1))
    shown = shown[:, :FILTERS]
    return _mosaic(title, shown.reshape(-1, *shown.shape[2:], 1), shown.shape[1])


def _mosaic(title: str, pictures: Array, alike: int = 1) -> Shown:
    parts = pictures.reshape(len(pictures) // alike, -1)
    low, high = ([float(f"{each:.6g}") for each in end(axis=1)] for end in (parts.min, parts.max))
    return Shown(title, mosaic(pictures, alike), low, high)


def mosaic(pictures: Array, alike: int = 1) -> Array:
    """(N, H, W, 1 or 3) -> one RGBA picture, uint8, with transparent lines between them: a page may
    be light or dark. alike: so many in a row are on one scale; 1: each on its own, and the whole
    nearly square."""
    count, height, width, _ = pictures.shape
    parts = pictures.reshape(count // alike, -1)
    low, high = (
        np.repeat(end(axis=1), alike)[:, None, None, None] for end in (parts.min, parts.max)
    )
    scaled = (pictures - low) / np.where(high > low, high - low, 1) * 255
    columns = alike if alike > 1 else int(np.ceil(np.sqrt(count)))
    rows = int(np.ceil(count / columns))
    gap = max(1, width // 16)
    whole = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, 4), np.uint8)
    for number, picture in enumerate(np.rint(scaled).astype(np.uint8)):
        top, left = number // columns * (height + gap), number % columns * (width + gap)
        whole[top : top + height, left : left + width, :3] = picture
        whole[top : top + height, left : left + width, 3] = 255
    return whole


def _show(axes: Axes, picture: Shown | None) -> None:
    axes.spines[:].set_visible(False)
    axes.set_xticks([])
    axes.set_yticks([])
    if picture is not None:
        axes.imshow(picture.pixels, interpolation="none")  # kept as it is, not resampled
