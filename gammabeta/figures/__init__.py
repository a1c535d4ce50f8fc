"""Rows and arrays to matplotlib figures, and figures to SVG text that a page can hold.

Pure functions: no pyplot, no global state, no files; the same numbers give the same SVG. A subset
has one colour and one line style, on every page, so print and colour-blind readers lose nothing.
An accuracy axis runs from 0 to 100 % always: a cut axis would flatter the difference. Other
shares, where a few percent are much, begin at 0 and end above the highest. What was
published is a thin grey line beside ours.
"""

from gammabeta.figures.drawings import Drawing, drawings, figure_for
from gammabeta.figures.gammas import gamma_histogram, histogram_edges, small_gamma_shares
from gammabeta.figures.house import NARROW, WIDE, fold
from gammabeta.figures.looks import LOOKS, Style, styles
from gammabeta.figures.subsets import accuracy_bars, learning_curves
from gammabeta.figures.svg import inline_svg, svg_text
from gammabeta.figures.write import write_figures

__all__ = [
    "LOOKS", "NARROW", "WIDE", "Drawing", "Style", "accuracy_bars", "drawings", "figure_for",
    "fold", "gamma_histogram", "histogram_edges", "inline_svg", "learning_curves",
    "small_gamma_shares", "styles", "svg_text", "write_figures",
]  # fmt: skip
