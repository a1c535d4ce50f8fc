"""Figures to SVG text: a file of its own, or an element that a page can hold."""

import io
import re
from html import escape

from matplotlib.figure import Figure

from gammabeta.figures.house import GRID, INK, PUBLISHED, house_style


def svg_text(figure: Figure) -> str:
    """The figure as a stand-alone SVG file: text is text, no date, transparent background."""
    with house_style(), io.StringIO() as file:
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        return file.getvalue()


def inline_svg(figure: Figure, prefix: str, label: str) -> str:
    """The figure as an <svg> element for an HTML page.

    prefix: makes every id its own, as matplotlib uses the same ones in each figure. label: what a
    screen reader says. Axes and text take the page's --figure-ink and --figure-grid colours.
    """
    text = svg_text(figure)
    text = text[text.index("<svg") :].strip()
    # The page has no use for the RDF, and <style> would apply to all of it.
    text = re.sub(r"<(metadata|style)\b.*?</\1>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'xlink:href="#', f'href="#{prefix}-', text)
    text = text.replace("url(#", f"url(#{prefix}-")
    text = text.replace(INK, f"var(--figure-ink, {INK})")
    text = text.replace(GRID, f"var(--figure-grid, {GRID})")
    text = text.replace(PUBLISHED, f"var(--figure-published, {PUBLISHED})")
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None
    # HTML needs no name spaces, and width and height are the page's affair.
    head = f'<svg {box.group()} role="img" aria-label="{escape(label)}">'
    return head + text[text.index(">") + 1 :]
