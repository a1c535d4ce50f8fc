"""A figure that knows its numbers: what is drawn is what the JSON file beside it holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Array = np.ndarray[Any, np.dtype[Any]]
Numbers = Sequence[float] | Array


@dataclass(frozen=True)
class Series:
    """One line, histogram or level, as drawn.

    x: places on the axis, (N,); of a histogram the edges of its bins, (N + 1,); None for a level,
    which belongs to no place. y: (N,), nan where a point is missing. low, high: ends of the band
    or the whiskers, (N,); None where no spread is known. n: of how many runs, all alike or one
    number a point. more: further numbers by name, each (N,) or one.
    """

    label: str
    x: Numbers | None
    y: Numbers
    low: Numbers | None = None
    high: Numbers | None = None
    n: int | Sequence[int] | None = None
    published: bool = False
    more: Mapping[str, Numbers | float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it: lists, null for what is not known."""
        names = ("label", "x", "y", "low", "high", "n", "published")
        return {name: plain(getattr(self, name)) for name in names} | {
            name: plain(each) for name, each in self.more.items()
        }


class Chart(Figure):
    """A matplotlib figure with the series that were drawn in it. about: further numbers of it, for
    its JSON."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.series: list[Series] = []
        self.about: dict[str, Any] = {}

    def curve(
        self, axes: Axes, series: Series, *, color: str, band: float = 0, whiskers: bool = False,
        **look: Any,
    ) -> None:  # fmt: skip
        """A line through the points, or a level across the axes. band: how opaque the area from
        low to high is, 0 for none. look: of the line, in matplotlib's words."""
        self.series.append(series)
        if series.low is not None and series.high is not None:
            if series.x is None:
                axes.axhspan(series.low[0], series.high[0], color=color, alpha=band, linewidth=0)
            elif band:
                axes.fill_between(series.x, series.low, series.high, color=color, alpha=band,
                                  linewidth=0)  # fmt: skip
            if whiskers and series.x is not None:
                axes.vlines(series.x, series.low, series.high, color=color, linewidth=1)
        if series.x is None:
            axes.axhline(series.y[0], color=color, **look)
        else:
            axes.plot(series.x, series.y, color=color, **look)

    def steps(self, axes: Axes, series: Series, *, color: str, line: str, label: str) -> None:
        """A histogram: its outline, and the area below."""
        self.series.append(series)
        axes.stairs(series.y, series.x, fill=True, color=color, alpha=0.16)
        axes.stairs(series.y, series.x, color=color, linestyle=line, linewidth=1.6, label=label)

    def numbers(self) -> dict[str, Any]:
        """What is drawn, for a JSON file. x, y: what the axes show. names: what stands at 0, 1, ...
        where the axis has no scale."""
        axes = self.axes
        found = {"x": axes[-1].get_xlabel(), "y": axes[0].get_title(loc="left")} if axes else {}
        numbers: dict[str, Any] = found | plain(self.about)
        return numbers | {"series": [each.to_dict() for each in self.series]}


def plain(value: Any) -> Any:
    """Arrays and tuples as lists, nan as None."""
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    return None if isinstance(value, float) and np.isnan(value) else value
