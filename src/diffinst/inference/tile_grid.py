"""Where the tiles of an image lie, and which core each one decides about."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from diffinst.config import ConfigError
from diffinst.ops.images import SIZE_DIVISOR

BLOCK = 4  # pixels per side that are averaged before a tile is judged
FLAT = 8.0
"""Grey levels of 255: a tile is flat where the means of its blocks lie no further apart."""
COLOURED, DARK = 15.0, 200.0
"""Tissue on a bright ground: blocks whose colours differ by as much, or that are darker."""
TISSUE = 0.001
"""The fraction of such blocks from which on a tile holds tissue."""

Rect = tuple[int, int, int, int]
"""(y0, x0, y1, x1), pixels of level 0."""


@dataclass(frozen=True)
class Tile:
    """A tile, in pixels of level 0.

    Attributes:
        row: Of the grid.
        column: Of the grid.
        rect: What the network sees.
        core: The part whose objects are its own; the cores of all tiles cover the image once.
    """

    row: int
    column: int
    rect: Rect
    core: Rect

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.rect[2] - self.rect[0], self.rect[3] - self.rect[1]

    def seed(self, seed: int) -> int:
        """The seed of its noise: from its place alone; the first tile has that of the run."""
        y, x = self.rect[:2]
        if not y and not x:
            return seed
        digest = blake2b(f"{seed} {y} {x}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % 2**63


@dataclass(frozen=True)
class TileGrid:
    """Tiles in rows over an image; neighbours share at least `overlap` pixels.

    The first tile of a row or column begins at 0, the last one ends with the image. Where the
    image fits into a tile there is one, of the image's size.

    Attributes:
        shape: (height, width) of the image.
        tile: Largest side.
        overlap: Pixels that neighbours share at least.
        align: The steps are multiples of it, if they can be: the grid of a network's feature map
            then lies alike in all tiles.

    Example:
        >>> grid = TileGrid((100, 250), tile=100, overlap=20)
        >>> [tile.rect for tile in grid.row(0)]
        [(0, 0, 100, 100), (0, 80, 100, 180), (0, 160, 100, 250)]
        >>> [tile.core for tile in grid.row(0)]
        [(0, 0, 100, 90), (0, 90, 100, 170), (0, 170, 100, 250)]
    """

    shape: tuple[int, int]
    tile: int
    overlap: int
    align: int = 1

    def __post_init__(self) -> None:
        if self.overlap < 0:
            raise ConfigError(f"overlap is {self.overlap}; give pixels, from 0")
        if self.tile < max(1, 2 * self.overlap):
            raise ConfigError(
                f"tile is {self.tile} and overlap {self.overlap} pixels; a tile must be at least "
                "twice the overlap, so that it has a part of its own: raise --tile or lower "
                "--overlap"
            )

    @property
    def step(self) -> int:
        """From one tile to the next."""
        most = self.tile - self.overlap
        return most // self.align * self.align or most

    @cached_property
    def _spans(self) -> tuple[list[tuple[int, int, int, int]], list[tuple[int, int, int, int]]]:
        return self._along(self.shape[0]), self._along(self.shape[1])

    def _along(self, length: int) -> list[tuple[int, int, int, int]]:
        """Start, end, start and end of the core of the tiles along one axis."""
        if length <= self.tile:
            return [(0, length, 0, length)]
        shared = self.tile - self.step
        count = -(-(length - shared) // self.step)
        starts = [i * self.step for i in range(count)]
        borders = [0, *(start + shared // 2 for start in starts[1:]), length]
        return [
            (start, min(start + self.tile, length), borders[i], borders[i + 1])
            for i, start in enumerate(starts)
        ]

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self._spans[0])

    def __len__(self) -> int:
        return len(self._spans[0]) * len(self._spans[1])

    def row(self, number: int) -> list[Tile]:
        """The tiles of a row, from left to right."""
        y0, y1, top, bottom = self._spans[0][number]
        return [
            Tile(number, column, (y0, x0, y1, x1), (top, left, bottom, right))
            for column, (x0, x1, left, right) in enumerate(self._spans[1])
        ]


def alignment(zoom: float) -> int:
    """Pixels that become a multiple of the network's coarsest stride; 1 where there are none.

    Example:
        >>> alignment(2.0), alignment(1.0), alignment(0.3333)
        (16, 32, 1)
    """
    for pixels in range(1, 4 * SIZE_DIVISOR + 1):
        strides = pixels * zoom / SIZE_DIVISOR
        if round(strides) >= 1 and abs(strides - round(strides)) < 1e-9:
            return pixels
    return 1


def is_flat(pixels: NDArray[np.uint8]) -> bool:
    """Whether there is nothing in a tile: all block means are nearly alike."""
    if int(pixels.max()) - int(pixels.min()) <= FLAT:
        return True  # quickly: so are the means
    means = _blocks(pixels)
    return bool((means.max((0, 1)) - means.min((0, 1)) <= FLAT).all())


def has_tissue(pixels: NDArray[np.uint8]) -> bool:
    """Whether a tile of a bright-field slide holds something coloured or dark."""
    means = _blocks(pixels)
    coloured = means.max(2) - means.min(2) >= COLOURED
    return bool((coloured | (means.min(2) < DARK)).mean() >= TISSUE)


def _blocks(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(h, w, 3) means of 4x4 blocks; what is left over at the border joins none."""
    height, width = (max(1, side // BLOCK) for side in pixels.shape[:2])
    if min(pixels.shape[:2]) < BLOCK:
        return pixels.astype(np.float32)
    cut = pixels[: height * BLOCK, : width * BLOCK]
    means: NDArray[np.float32] = cut.reshape(height, BLOCK, width, BLOCK, 3).mean(
        (1, 3), dtype=np.float32
    )
    return means
