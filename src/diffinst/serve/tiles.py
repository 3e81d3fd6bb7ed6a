"""A large image as tiles, for a page that shows a part of it: each level half as large as the last.

They are made at the first question, all of them, and lie beside the image from then on.
"""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path
from typing import TypedDict

from PIL import Image

from diffinst.serve.refusal import Refused
from diffinst.serve.sessions import TILES, About, room

WHOLE = 4_000_000  # pixels of an image up to which the page and the model get it in one piece
SIDE = 1024  # pixels of a tile; the last ones of a row and a column are smaller
QUALITY = 92  # of JPEG: they are looked at, and the model sees the image itself
_making = threading.Lock()


class Tiled(TypedDict):
    """How an image is cut: pixels of a tile's side, and how many levels there are."""

    side: int
    levels: int


def is_large(about: About) -> bool:
    """Whether an image is shown, and looked at by models, in parts."""
    return about.width * about.height > WHOLE


def tiled(about: About) -> Tiled | None:
    """How an image is cut; None: it is small, and shown whole."""
    if not is_large(about):
        return None
    longest, levels = max(about.width, about.height), 1
    while longest > SIDE:
        longest, levels = -(-longest // 2), levels + 1
    return {"side": SIDE, "levels": levels}


def times_whole(about: About) -> float:
    """How many times as many pixels an image has as one that is taken in one piece; at least 1."""
    return max(1.0, about.width * about.height / WHOLE)


def tile(file: Path, about: About, level: int, x: int, y: int) -> Path:
    """The JPEG of a tile.

    Args:
        file: The image.
        about: What is known of it.
        level: 0: every pixel; 1: every second one, ...
        x: The tile's place in its row.
        y: In its column.

    Raises:
        Refused: 404: the image has no such tile, or is gone; 507: the disk is full.
    """
    cut, scale = tiled(about), 2**level
    width, height = -(-about.width // scale), -(-about.height // scale)
    if cut is None or level >= cut["levels"] or x * SIDE >= width or y * SIDE >= height:
        raise Refused(404, f"this image has no tile {x}, {y} at level {level}")
    folder = file.with_name(TILES)
    if not folder.is_dir():
        with _making:  # one image is in memory at a time
            if not folder.is_dir():
                _make(file, folder, cut["levels"])
    return folder / _name(level, x, y)


def _name(level: int, x: int, y: int) -> str:
    return f"{level}-{x}-{y}.jpg"


def _make(file: Path, folder: Path, levels: int) -> None:
    try:
        with room(), tempfile.TemporaryDirectory(prefix=f"{TILES}-", dir=folder.parent) as place:
            with Image.open(file) as opened:
                image = opened.convert("RGB")
            unfinished = Path(place) / TILES
            unfinished.mkdir()
            for level in range(levels):
                _cut(image, level, unfinished)
                image = image.reduce(2)
            os.replace(unfinished, folder)
    except FileNotFoundError as error:  # removed meanwhile
        raise Refused(404, "this image is not there any more") from error


def _cut(image: Image.Image, level: int, folder: Path) -> None:
    for top in range(0, image.height, SIDE):
        for left in range(0, image.width, SIDE):
            right, bottom = min(left + SIDE, image.width), min(top + SIDE, image.height)
            part = image.crop((left, top, right, bottom))
            name = _name(level, left // SIDE, top // SIDE)
            part.save(folder / name, quality=QUALITY, subsampling=0)
