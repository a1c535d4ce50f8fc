"""One image to pixels, and the crops: against Pillow, which is slower and in no doubt right."""

import io
import subprocess
import sys

import numpy as np
import pytest
from image_files import broken, deep, photo
from PIL import Image

from gammabeta.data import crops
from gammabeta.data.crops import random_box, resize, shrunk, training_square
from gammabeta.data.decode import BrokenImage, Picture
from gammabeta.errors import InputError


def by_pillow(content):
    image = Image.open(io.BytesIO(content))
    # Pillow warns of a palette with transparency unless it goes this way.
    return np.array((image.convert("RGBA") if image.mode == "P" else image).convert("RGB"))


def difference(one, other):
    return np.abs(one.astype(int) - other.astype(int))


@pytest.mark.parametrize(
    ("content", "needs_pillow"),
    [
        (photo(1), False),
        (photo(1, mode="L"), False),
        (photo(1, mode="CMYK"), True),
        (photo(1, kind="PNG"), True),
        (photo(1, kind="PNG", mode="P", transparency=b"\0\1"), True),
        (photo(1, (50, 1)), False),
        (photo(1, progressive=True), False),
    ],
    ids=["RGB", "gray", "CMYK", "PNG", "palette", "1 pixel wide", "progressive"],
)
def test_pixels_are_pillows(content, needs_pillow):
    picture = Picture(content)
    pixels = picture.pixels()
    assert picture.by_pillow == needs_pillow
    assert pixels.shape == (picture.height, picture.width, 3)
    assert difference(pixels, by_pillow(content)).max() <= 2  # builds of libjpeg differ


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
@pytest.mark.parametrize("scale", [2, 4, 8])
def test_a_smaller_scale_is_the_same_image(mode, scale):
    content = photo(2, (45, 61), mode)
    pixels = Picture(content).pixels(scale)
    assert pixels.shape == (-(-45 // scale), -(-61 // scale), 3)
    expected = Image.fromarray(Picture(content).pixels()).reduce(scale)
    assert difference(pixels, np.array(expected)).mean() < 5


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (broken(), "truncated"),
        (b"", "neither JPEG"),
        (b"no image at all", "neither JPEG"),
        (photo(3, kind="PNG")[:300], "truncated"),
        (deep(), "more than 8 bits"),
    ],
    ids=["half a JPEG", "empty", "text", "half a PNG", "16 bits"],
)
def test_what_is_broken(content, reason):
    with pytest.raises(BrokenImage, match=reason):
        Picture(content).pixels()


@pytest.mark.parametrize("target", [(20, 20), (30, 17), (90, 80), (1, 1)])
@pytest.mark.parametrize("shape", [(45, 61), (64, 1), (1, 30)])
def test_the_kernel_is_pillows_bilinear(shape, target):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    size = target[::-1]
    expected = np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
    assert difference(resize(pixels, *target), expected).max() <= 1


def test_the_test_square_is_the_middle_after_resizing():
    content = photo(4, (70, 101))
    image = Image.fromarray(Picture(content).pixels())
    short = crops.test_resize(56)
    assert short == 64
    resized = image.resize((int(101 * 64 / 70), 64), Image.Resampling.BILINEAR)
    left, top = (resized.width - 56) // 2, 4
    expected = np.array(resized.crop((left, top, left + 56, top + 56)))
    assert difference(crops.test_square(Picture(content), 56), expected).max() <= 1
    assert crops.test_resize(224) == 256


@pytest.mark.parametrize("shape", [(400, 1), (1, 400), (3, 999), (57, 57), (9, 8)])
def test_any_shape_becomes_a_square(shape):
    picture = Picture(photo(5, shape))
    assert crops.test_square(picture, 32).shape == (32, 32, 3)
    box = random_box(0, 0, 0, *shape)
    assert training_square(picture, box, 32, flip=True).shape == (32, 32, 3)
    assert min(shrunk(picture, 37).shape[:2]) == 37


def test_a_training_square_is_its_box_at_any_scale():
    content = photo(6, (400, 500))
    whole = Picture(content).pixels()
    for box in [(0, 0, 400, 500), (30, 50, 350, 300), (100, 200, 90, 100), (7, 9, 30, 31)]:
        top, left, tall, wide = box
        part = Image.fromarray(whole[top : top + tall, left : left + wide])
        expected = np.array(part.resize((32, 32), Image.Resampling.BILINEAR))
        square = training_square(Picture(content), box, 32, flip=False)
        assert difference(square, expected).mean() < 4
        flipped = training_square(Picture(content), box, 32, flip=True)
        assert np.array_equal(flipped, square[:, ::-1])


def test_boxes_have_the_stated_area_and_aspect():
    boxes = [random_box(3, 1, index, 300, 400) for index in range(2000)]
    shares = np.array([tall * wide / 120_000 for _, _, tall, wide in boxes])
    aspects = np.array([wide / tall for _, _, tall, wide in boxes])
    assert shares.min() > 0.099
    assert shares.max() <= 1
    # Large boxes of unlucky aspect do not fit and are drawn again, so small ones are more frequent.
    assert 0.4 < shares.mean() < 0.5
    assert aspects.min() > 0.78
    assert aspects.max() < 1.28
    assert abs(np.log(aspects).mean()) < 0.02
    for top, left, tall, wide in boxes:
        assert 0 <= top <= 300 - tall
        assert 0 <= left <= 400 - wide
    assert min(top for top, *_ in boxes) == 0
    assert max(left + wide for _, left, _, wide in boxes) == 400


def test_a_box_depends_on_seed_epoch_and_index():
    numbers = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    boxes = [random_box(*each, 300, 400) for each in numbers]
    assert len(set(boxes)) == 4
    assert boxes == [random_box(*each, 300, 400) for each in numbers]


def test_where_no_box_fits_it_is_the_largest_in_the_middle():
    top, left, tall, wide = random_box(0, 0, 0, 10, 1000)
    assert (top, tall) == (0, 10)
    assert wide == round(10 * 1.25)
    assert left == (1000 - wide) // 2


@pytest.mark.slow
def test_only_a_jpeg_needs_simplejpeg(monkeypatch):
    monkeypatch.setitem(sys.modules, "simplejpeg", None)  # as if it were not installed
    with pytest.raises(InputError, match="pip install simplejpeg"):
        Picture(photo(1))
    blocked = "import sys; sys.modules['simplejpeg'] = None; import gammabeta.cli"
    subprocess.run([sys.executable, "-c", blocked], check=True)
