"""What stands in a figure, read off its lines, outlines and bands, held against what it tells."""

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.patches import StepPatch

from gammabeta.figures.house import INK


def check_told(figure):
    """Every line and outline of the figure is one of its series and the other way round, and every
    band and whisker stands from low to high."""
    told = [each for each in figure.series if each.label != "guessing"]
    lines = [pair for axes in figure.axes for pair in _lines(axes)]
    steps = [each.get_data() for axes in figure.axes for each in axes.patches
             if isinstance(each, StepPatch) and not each.get_fill()]  # fmt: skip
    assert len(lines) + len(steps) == len(told) > 0
    for series in told:
        x, y = series.x, np.asarray(series.y)
        if x is None:
            x, y = [0, 1], np.repeat(y, 2)
        if len(x) == len(y):
            assert any(_same(x, a) and _same(y, b) for a, b in lines), series.label
        else:
            assert any(_same(x, each.edges) and _same(y, each.values) for each in steps)
    whole = [np.concatenate(each) for each in map(_corners, _collections(figure)) if each]
    assert bool(whole) == any(each.low is not None and each.x is not None for each in told)
    for series in told:
        if series.low is not None and series.x is not None:
            for end in (series.low, series.high):
                wanted = np.array([series.x, end]).T
                wanted = wanted[~np.isnan(wanted).any(axis=1)]
                assert len(wanted)
                assert any(_holds(corners, wanted) for corners in whole), series.label


def _lines(axes):
    for line in axes.lines:
        x, y = (np.asarray(each, dtype=float) for each in line.get_data())
        if len(x) and line.get_color() != INK:  # those are marks: guessing, zero, a threshold
            yield x, y


def _collections(figure):
    return [each for axes in figure.axes for each in axes.collections]


def _corners(collection):
    if isinstance(collection, LineCollection):
        return [each for each in map(np.asarray, collection.get_segments()) if each.ndim == 2]
    return [path.vertices for path in collection.get_paths() if len(path.vertices) > 2]


def _same(one, other):
    one, other = (np.asarray(each, dtype=float) for each in (one, other))
    return one.shape == other.shape and np.allclose(one, other, equal_nan=True)


def _holds(corners, wanted):
    return all(np.isclose(corners, each).all(axis=1).any() for each in wanted)
