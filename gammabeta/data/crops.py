"""From an encoded image to the square that a network sees: random crops to train on, the middle to
test on, and the resizing of both.

The kernel, wherever something is resized: torch's "bilinear" with antialiasing, in whole numbers
on uint8. That is a triangle whose width grows with the reduction, the filter that Pillow calls
BILINEAR (and torchvision takes by default); the results differ by 1 of 255 at most.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F

from gammabeta import rng
from gammabeta.data.decode import SCALES, Picture

# Share of the image's area and width / height of a random crop: the paper's recipe for ImageNet.
AREA = (0.1, 1.0)
ASPECT = (0.8, 1.25)
_ATTEMPTS = 10
_LONGEST = 4  # times the short side; what is farther out no centre crop sees

Box = tuple[int, int, int, int]  # top, left, height, width


def test_resize(size: int) -> int:
    """The short side that a test image is resized to before its middle is cut out: 256 for 224."""
    return round(size * 256 / 224)


test_resize.__test__ = False  # type: ignore[attr-defined]  # the name is no test's


def random_box(seed: int, epoch: int, index: int, height: int, width: int) -> Box:
    """The crop of training image `index` in an epoch: a function of these numbers alone.

    Area and the logarithm of width / height are uniform in AREA and ASPECT, and so is the place.
    A box that does not fit is drawn again; after ten, it is the largest one in the middle whose
    width / height lies in ASPECT.
    """
    draws = rng.generator(seed, f"resized-crop/{epoch}", index).random((_ATTEMPTS, 4))
    for share, aspect, down, across in draws.tolist():
        area = height * width * (AREA[0] + share * (AREA[1] - AREA[0]))
        low, high = math.log(ASPECT[0]), math.log(ASPECT[1])
        ratio = math.exp(low + aspect * (high - low))
        tall, wide = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < tall <= height and 0 < wide <= width:
            return int(down * (height - tall + 1)), int(across * (width - wide + 1)), tall, wide
    tall = min(height, max(1, round(width / ASPECT[0])))
    wide = min(width, max(1, round(height * ASPECT[1])))
    return (height - tall) // 2, (width - wide) // 2, tall, wide


def training_square(picture: Picture, box: Box, size: int, flip: bool) -> np.ndarray:
    """The part `box` of a picture as uint8 (size, size, 3), mirrored where `flip`.

    The image is decoded at the smallest scale at which the box still has size x size pixels; the
    box is then rounded to whole pixels of that scale. Raises BrokenImage.
    """
    scale = _scale(box[2:], (size, size))
    pixels = picture.pixels(scale)
    top, left, tall, wide = (round(value / scale) for value in box)
    top, left = min(top, pixels.shape[0] - 1), min(left, pixels.shape[1] - 1)
    square = resize(pixels[top : top + max(tall, 1), left : left + max(wide, 1)], size, size)
    return square[:, ::-1] if flip else square


def test_square(picture: Picture, size: int) -> np.ndarray:
    """The middle of a picture whose short side was resized to `test_resize(size)`, as uint8
    (size, size, 3). Raises BrokenImage."""
    pixels = shrunk(picture, test_resize(size))
    top, left = ((side - size) // 2 for side in pixels.shape[:2])
    return pixels[top : top + size, left : left + size]


test_square.__test__ = False  # type: ignore[attr-defined]


def shrunk(picture: Picture, short: int) -> np.ndarray:
    """A picture resized so that its short side has `short` pixels: uint8 (H, W, 3). Of an image
    more than four times as long as wide only the middle is kept. Raises BrokenImage."""
    smaller = min(picture.height, picture.width)
    pixels = picture.pixels(_scale((smaller, smaller), (short, short)))
    height, width = pixels.shape[:2]
    longest = _LONGEST * min(height, width)
    if max(height, width) > longest:
        top, left = max(0, height - longest) // 2, max(0, width - longest) // 2
        pixels = pixels[top : top + longest, left : left + longest]
        height, width = pixels.shape[:2]
    longer = int(short * max(height, width) / min(height, width))
    return resize(pixels, *((longer, short) if height > width else (short, longer)))


def resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 (H, W, 3) -> uint8 (height, width, 3), with the kernel named above."""
    if pixels.shape[:2] == (height, width):
        return pixels
    # N C H W in the memory of N H W C, for which torch has the fast program.
    image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]
    resized = F.interpolate(image, (height, width), mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def _scale(have: tuple[int, ...], want: tuple[int, ...]) -> int:
    """By how much an image can be decoded smaller so that no side falls below `want`."""
    for scale in SCALES:
        if all(each >= scale * least for each, least in zip(have, want, strict=True)):
            return scale
    return 1
