"""Colours that can be seen on the light and the dark page and told apart by every eye, in lines,
points and names."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from gammabeta import report
from gammabeta.figures.house import PUBLISHED
from gammabeta.figures.looks import COLORS, MARKERS, styles

TEMPLATE = (Path(report.__file__).parent / "page.html.jinja").read_text()
PAGES = re.findall(r"--page: (#\w+);", TEMPLATE)
NAMES = re.findall(r"--figure-published: (#\w+);", TEMPLATE)
# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
EYES = {
    "all": np.eye(3),
    "protan": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                        [-0.003882, -0.048116, 1.051998]]),
    "deutan": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                        [-0.011820, 0.042940, 0.968881]]),
    "tritan": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                        [0.004733, 0.691367, 0.303900]]),
}  # fmt: skip
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def linear(color):
    part = np.array([int(color[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    """As WCAG 2 defines it."""
    low, high = sorted(float(linear(each) @ [0.2126, 0.7152, 0.0722]) for each in (one, other))
    return (high + 0.05) / (low + 0.05)


def lab(color, eye):
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722],
                       [0.0193, 0.1192, 0.9505]])  # fmt: skip
    x = to_xyz @ np.clip(EYES[eye] @ linear(color), 0, 1) / [0.9505, 1.0, 1.089]
    f = np.where(x > 0.008856, np.cbrt(x), 7.787 * x + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def nearest(colors, eye):
    """The smallest distance of two of them in CIELAB."""
    pairs = itertools.combinations([lab(color, eye) for color in colors], 2)
    return min(float(np.linalg.norm(one - other)) for one, other in pairs)


def test_contrast_is_that_of_the_definition():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


def test_lines_are_seen_on_both_pages():
    assert len(PAGES) == 2
    for page, color in itertools.product(PAGES, COLORS):
        assert contrast(color, page) >= 3, (color, page)


def test_published_names_are_readable_on_both_pages_and_in_files():
    for page, color in zip(PAGES, NAMES, strict=True):
        assert contrast(color, page) >= 4.5
    assert contrast(PUBLISHED, "#ffffff") >= 4.5
    assert contrast(PUBLISHED, "#000000") >= 4.5


@pytest.mark.parametrize("eye", EYES)
def test_every_eye_tells_the_colors_apart(eye):
    usual = min(nearest(OKABE_ITO, each) for each in EYES)
    assert nearest(COLORS, eye) >= usual > 15


def test_lines_differ_in_more_than_color():
    """The best-known subsets: with colours gone, dashes and markers still tell neighbours apart."""
    assert len(set(MARKERS.values())) == 4
    looks = styles(["bn", "all", "random:2", "output"])
    assert len({look.line for look in looks.values()}) == 4
    assert len({look.marker for look in looks.values()}) == 4
