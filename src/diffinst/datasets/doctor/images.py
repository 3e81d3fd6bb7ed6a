"""What an image file on disk is: readable, how large, rotated, 16-bit, the same as another."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image

from diffinst.io.images import ImageReadError, read_image

THREADS = 4  # each holds one image at a time; decoding releases Python's lock
_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap height and width


@dataclass(frozen=True, slots=True)
class Facts:
    """What an image file is.

    Attributes:
        size: (height, width) as the package reads it, EXIF rotation applied.
        orientation: EXIF's number; 1: upright.
        traits: Codes among "16-bit", "cmyk", "alpha", "several-pages".
        contrast: Brightest minus darkest value as read, 0 to 255.
        digest: Of size and pixels as read: equal for equal images, whatever their files.
    """

    size: tuple[int, int]
    orientation: int
    traits: tuple[str, ...]
    contrast: int
    digest: bytes

    @property
    def sideways(self) -> bool:
        """Whether EXIF rotation swaps height and width."""
        return self.orientation in _SIDEWAYS


def inspect(path: Path) -> Facts | str:
    """Look at one file; a text says why it cannot be read."""
    try:
        pixels = read_image(path)
    except (ImageReadError, MemoryError) as error:
        return str(error) or "does not fit into memory"
    orientation, traits = _header(path)
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    digest.update(pixels.data)
    height, width, _ = pixels.shape
    contrast = int(pixels.max()) - int(pixels.min())
    return Facts((height, width), orientation, traits, contrast, digest.digest())


def inspect_all(
    paths: Sequence[Path], progress: Callable[[int], None]
) -> Iterator[tuple[Path, Facts | str]]:
    """Look at many files, a few at a time; yields in order, `progress` gets the count so far."""
    with warnings.catch_warnings(), ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        warnings.simplefilter("ignore")  # Pillow on large images and odd EXIF: findings tell
        for count, (path, facts) in enumerate(zip(paths, pool.map(inspect, paths), strict=True), 1):
            progress(count)
            yield path, facts


def _header(path: Path) -> tuple[int, tuple[str, ...]]:
    """EXIF orientation and traits of a file that has just been read."""
    try:
        with Image.open(path) as image:
            said = image.getexif().get(ExifTags.Base.Orientation, 1)
            # Text, NaN, 0/0, a number beyond: Pillow turns nothing. It does turn by 6.0.
            orientation = next((n for n in range(1, 9) if n == said), 1)
            deep = image.mode in ("I", "F") or image.mode.startswith("I;16") or _deep_tiles(image)
            traits = {
                "16-bit": deep,
                "cmyk": image.mode == "CMYK",
                "alpha": _transparent(image),
                "several-pages": getattr(image, "n_frames", 1) > 1,
            }
    except Exception:  # Pillow raises nearly everything on odd marks, and on huge images
        return 1, ()  # it was read well: only this second look fails
    return orientation, tuple(code for code, found in traits.items() if found)


def _transparent(image: Image.Image) -> bool:
    """Whether some pixel is not opaque; where a palette or one colour says so, no need to look."""
    if image.mode in ("RGBA", "LA"):
        return image.getchannel("A").getextrema()[0] != 255
    return image.has_transparency_data


def _deep_tiles(image: Image.Image) -> bool:
    """16-bit colour: Pillow's mode does not tell, what it is decoded from does."""
    return any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
