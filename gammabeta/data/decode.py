"""One encoded image to pixels: JPEG through simplejpeg, what that cannot read through Pillow.

simplejpeg lets go of the interpreter lock, so threads decode side by side, and it can decode at a
half, a quarter or an eighth of the size, which leaves less to resize. It refuses CMYK, whatever is
no JPEG in spite of its name, and JPEGs with a fault that Pillow repairs: those go to Pillow, which
has the last word on what is broken. The orientation in EXIF is ignored, as it is in torchvision.
"""

import io
from types import ModuleType

import numpy as np
from PIL import Image

from gammabeta.errors import InputError

SCALES = (8, 4, 2)
_LARGEST = 2 * 89_478_485  # pixels; Pillow takes a larger image for an attack, too


class BrokenImage(Exception):
    """These bytes are no image that can be decoded; the message says why."""


def simplejpeg() -> ModuleType:
    """The package of that name, loaded when the first JPEG comes along: nothing else needs it.
    Raises InputError where it is missing."""
    try:
        import simplejpeg as found
    except ImportError as error:
        raise InputError(
            f"JPEG images need the package simplejpeg ({error}): pip install simplejpeg"
        ) from None
    loaded: ModuleType = found
    return loaded


class Picture:
    """An image of which only the header has been read. Raises BrokenImage.

    height, width: in pixels. by_pillow: whether simplejpeg could not read it, known for sure once
    `pixels` has been called.
    """

    def __init__(self, content: bytes | memoryview) -> None:
        self._content = content
        self._opened: Image.Image | None = None
        self.by_pillow = False
        jpeg = simplejpeg()
        try:
            self.height, self.width, colours, _ = jpeg.decode_jpeg_header(content)
            self.by_pillow = colours not in ("YCbCr", "RGB", "Gray")
        except Exception:  # simplejpeg has one kind of error for all reasons
            self.by_pillow = True
        if self.by_pillow:
            self._open()
        if not 0 < self.height * self.width <= _LARGEST:
            raise BrokenImage(f"it has {self.width}x{self.height} pixels")

    def pixels(self, scale: int = 1) -> np.ndarray:
        """uint8 (H, W, 3), H W C, red green blue; H and W are the image's divided by `scale` (1 or
        one of SCALES), rounded up. Raises BrokenImage."""
        height, width = -(-self.height // scale), -(-self.width // scale)
        if not self.by_pillow:
            try:
                decoded: np.ndarray = simplejpeg().decode_jpeg(
                    self._content, "RGB", min_height=height, min_width=width
                )
                return decoded
            except Exception:
                self.by_pillow = True
                self._open()
        assert self._opened is not None
        try:
            image = self._opened
            if image.mode.startswith(("I", "F")):
                raise BrokenImage("more than 8 bits a channel")
            # Pillow warns of a palette with transparency unless it goes this way.
            image = image.convert("RGBA") if "transparency" in image.info else image
            image = image.convert("RGB")
            if scale > 1:
                image = image.reduce(scale)
            return np.array(image)
        except BrokenImage:
            raise
        except Exception as error:  # decoders fail in many ways, SyntaxError among them
            raise BrokenImage(_reason(error)) from None

    def _open(self) -> None:
        try:
            self._opened = Image.open(io.BytesIO(self._content))
        except Exception as error:
            raise BrokenImage(_reason(error)) from None
        self.width, self.height = self._opened.size


def _reason(error: Exception) -> str:
    text = str(error)
    if "cannot identify" in text:  # what follows is an address in memory
        return "neither JPEG nor anything else that Pillow knows"
    return " ".join(ascii(text)[1:-1].split())[:80] or type(error).__name__
