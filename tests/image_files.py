"""Small image folders in ImageNet's layout, made on the fly."""

import io

import numpy as np
from PIL import Image

CLASSES = ("n01", "n02", "n03")


def photo(seed, size=(40, 48), mode="RGB", kind="JPEG", **options):
    """A smooth random image of (height, width), encoded."""
    draw = np.random.default_rng(seed)
    small = Image.fromarray(draw.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    image = small.resize(size[::-1], Image.Resampling.BICUBIC).convert(mode)
    file = io.BytesIO()
    image.save(file, kind, **({"quality": 95} if kind == "JPEG" else {}), **options)
    return file.getvalue()


def broken():
    """A JPEG that ends in the middle."""
    content = photo(99)
    return content[: len(content) // 2]


def image_folder(root, train=4, val=2):
    """train/ and val/ with so many images of each class, all different in size."""
    for place, (split, count) in enumerate((("train", train), ("val", val))):
        for label, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                seed = 1000 * place + 100 * label + number
                content = photo(seed, (36 + number, 44 - 2 * label))
                (folder / f"{number}.JPEG").write_bytes(content)
    return root


def deep():
    """A PNG of 16 bits a channel."""
    file = io.BytesIO()
    Image.fromarray(np.full((9, 9), 50_000, np.uint16)).save(file, "PNG")
    return file.getvalue()
