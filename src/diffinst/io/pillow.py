"""Reads what Pillow opens: upright, of any mode and depth, one frame or several as one."""

from __future__ import annotations

import struct
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from diffinst.config import Reading
from diffinst.io.depth import Values
from diffinst.io.image_error import ImageReadError
from diffinst.io.planes import first_page, pages_note, projected, upright

_DAMAGED = (OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, struct.error)
_BOMB = (Image.DecompressionBombError, Image.DecompressionBombWarning)
DECODING_ERRORS = (*_DAMAGED, *_BOMB)  # what Pillow's decoders raise on such files
_MOST_16_BIT = 65535
_ONE_PHOTO = ("MPO",)  # formats whose further pages are previews and depth maps


class _PillowLimit:
    """Raises Pillow's pixel limit while at least one thread decodes; the last one restores it.

    What Pillow warns of meanwhile (marks of damaged EXIF, which it passes over) names no file and
    is not shown.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before: int | None = None
        self._quiet = ExitStack()

    @contextmanager
    def __call__(self, most: int) -> Iterator[None]:
        with self._lock:
            if self._users == 0:
                self._before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, most
                self._quiet.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    Image.MAX_IMAGE_PIXELS = self._before
                    self._quiet.close()


limited = _PillowLimit()
"""`with limited(most)`: images of up to `most` pixels may be decoded, without Pillow's warnings."""


def undecodable(name: str, error: BaseException, most: int) -> str:
    """What to say of an image that a decoder gave up."""
    if isinstance(error, _BOMB):
        return _too_large(name, f"more than {most}", most)
    return f"{name}: is cut short or damaged ({error}); copy or download it again"


def _too_large(name: str, pixels: str, most: int) -> str:
    return (
        f"{name}: has {pixels} pixels, allowed are {most}; cut it into tiles, or raise "
        "`diffinst.io.images.MAX_PIXELS` if you trust the file"
    )


def from_pil(
    image: Image.Image, name: str, reading: Reading, most: int, *, file: Path | None = None
) -> tuple[Values, list[str]]:
    """The values of an opened image, and notes on its other pages.

    Args:
        image: Of any mode; left as it was.
        name: Of it, for errors.
        reading: Which page, or how all become one; None of both: the frame that it stands at.
        most: Pixels that are allowed.
        file: Where it was opened from just now; None: by somebody else.

    Returns:
        (height, width, channels) of any depth; four channels are RGBA.
    """
    pixels = image.width * image.height
    if pixels == 0:
        raise ImageReadError(f"{name}: its size (w, h) is {image.size}, no pixel; leave it out")
    if pixels > most:
        raise ImageReadError(_too_large(name, str(pixels), most))
    try:
        count = 1 if image.format in _ONE_PHOTO else getattr(image, "n_frames", 1)
        page = first_page(reading, count, name)
        if file is not None and _deep_colours(image):
            with limited(most):
                return _deep_png(file, image), []
        if count == 1 or (reading.page is None and reading.project is None):
            values = _frame(image, most)
        else:
            values = projected(_frames(image, page, count, reading, most), reading.project)
    except ImageReadError:
        raise
    except DECODING_ERRORS as error:
        raise ImageReadError(undecodable(name, error, most)) from error
    if image.mode == "I" and values.min() >= 0 and values.max() <= _MOST_16_BIT:
        values = values.astype(np.uint16)
    return values, pages_note(reading, count, name) if file is not None else []


def _frames(
    image: Image.Image, page: int, count: int, reading: Reading, most: int
) -> Iterable[Values]:
    """One page or all of them; the image goes back to where it was."""
    before = image.tell()
    try:
        for number in [page] if reading.project is None else range(count):
            image.seek(number)
            yield _frame(image, most)
    finally:
        image.seek(before)


def _frame(image: Image.Image, most: int) -> Values:
    with limited(most):
        image.load()
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode == "La":  # Pillow only knows the way back to LA
        image = image.convert("LA")
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    values: Values = np.asarray(image)
    return values.reshape(*values.shape[:2], -1)


def _deep_colours(image: Image.Image) -> bool:
    """Whether it is a PNG of 16-bit colours, of which Pillow would drop the lower eight."""
    deep = any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
    return deep and image.format == "PNG" and image.mode in ("RGB", "RGBA", "LA")


def _deep_png(file: Path, image: Image.Image) -> Values:
    """Pillow takes one byte of each value; which one, the order of bytes says that it is told."""
    if any(str(tile[3]).startswith("LA") for tile in getattr(image, "tile", ())):
        raise ImageReadError(f"{file}: is 16-bit grey with alpha; save it without alpha")
    bytes_ = []
    for order in "BL":
        with Image.open(file) as half:
            half.tile = [(*tile[:3], f"{half.mode};16{order}") for tile in half.tile]
            half.load()
            bytes_.append(np.asarray(half).astype(np.uint16))
    values: Values = bytes_[0] * np.uint16(256) + bytes_[1]
    return upright(values, image.getexif().get(ExifTags.Base.Orientation, 1))
