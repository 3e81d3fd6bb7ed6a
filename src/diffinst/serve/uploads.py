"""Decodes what a client uploads; only formats of plain images, and never more pixels than allowed.

The header is looked at before anything is decoded, so a small file of a huge image costs nothing.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from diffinst.config import Reading
from diffinst.io.images import ImageReadError, Pixels, read
from diffinst.io.pillow import DECODING_ERRORS, limited
from diffinst.serve.refusal import Refused

FORMATS = {"PNG": ".png", "JPEG": ".jpg", "TIFF": ".tif", "BMP": ".bmp", "WEBP": ".webp",
           "GIF": ".gif"}  # fmt: skip
HEADER_ALONE = 2**62  # pixels that Pillow is to accept where nothing is decoded


def decode(content: bytes, name: str, most: int) -> tuple[Pixels, tuple[str, ...]]:
    """RGB pixels of an uploaded file, and what is to be told of how it was read.

    Args:
        content: The file.
        name: What its client calls it, for errors.
        most: Pixels that are allowed.

    Raises:
        Refused: 400 empty or damaged, 413 too many pixels, 415 of another format.
    """
    if not content:
        raise Refused(400, f"{name}: the file is empty; choose another one")
    suffix = _suffix(content, name, most)
    with tempfile.TemporaryDirectory(prefix="diffinst-upload-") as place:
        path = Path(place) / f"upload{suffix}"
        path.write_bytes(content)
        try:
            return read(path, Reading())
        except ImageReadError as error:
            raise Refused(400, str(error).replace(str(path), name)) from error


def _suffix(content: bytes, name: str, most: int) -> str:
    """That of its format, once its header is found to be allowed."""
    known = "PNG, JPEG, TIFF, BMP, WebP or GIF"
    try:
        formats = list(FORMATS)
        with limited(HEADER_ALONE), Image.open(io.BytesIO(content), formats=formats) as image:
            width, height, kind = image.width, image.height, image.format or ""
    except UnidentifiedImageError as error:
        raise Refused(415, f"{name}: is no image that is read here; give {known}") from error
    except DECODING_ERRORS as error:
        raise Refused(400, f"{name}: is cut short or damaged; copy it again") from error
    if width * height > most:
        raise Refused(
            413, f"{name}: has {width} x {height} = {width * height:,} pixels; allowed are "
            f"{most:,}: make it smaller, or cut it into tiles"
        )  # fmt: skip
    return FORMATS.get(kind, ".jpg")  # an MPO is a JPEG with previews
