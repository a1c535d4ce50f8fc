"""Figures as a page holds them: drawn twice, for a laptop and for a phone."""

from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.figure import Figure

from gammabeta import figures


@dataclass(frozen=True)
class Picture:
    """One figure of the page, drawn twice: for a laptop and for a phone."""

    id: str
    title: str
    wide: str
    narrow: str
    caption: str


def picture(
    id: str, title: str, about: str, caption: str, draw: Callable[[float], Figure]
) -> Picture:
    """about: what tells it from the other figures of that title, for a reader who sees none of
    them: the question, the setting. draw: makes the figure at a width in inches. Ids inside the SVG
    begin with `id`."""
    wide, narrow = (
        Markup(figures.inline_svg(draw(width), f"{id}-{size}", f"{title}. {about}"))
        for size, width in (("wide", figures.WIDE), ("narrow", figures.NARROW))
    )
    return Picture(id, title, wide, narrow, caption)
