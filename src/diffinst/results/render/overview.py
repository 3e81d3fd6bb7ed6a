"""A small copy of a large image with the outlines of what was found."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from diffinst.results.outlines import polygons
from diffinst.results.render.marks import PALETTE, Drawable

SIDE = 2000  # pixels, at most
BLOCK = 1024  # pixels that are read at once, about
SMALLEST = 3.0  # pixels of the overview: smaller objects become a dot

Pixels = NDArray[np.uint8]


def shrunken(
    size: tuple[int, int], read: Callable[[int, int, int, int], Pixels], side: int = SIDE
) -> tuple[Pixels, int]:
    """An image of at most `side` pixels per side, of means of blocks, and how many times smaller.

    Args:
        size: (height, width) of what is read.
        read: Gives (height, width, 3) of a window: y, x, height, width.
        side: Of the result.
    """
    factor = max(1, math.ceil(max(size) / side))
    block = max(1, BLOCK // factor) * factor
    small = np.zeros((-(-size[0] // factor), -(-size[1] // factor), 3), np.uint8)
    for y in range(0, size[0], block):
        for x in range(0, size[1], block):
            high, wide = min(block, size[0] - y), min(block, size[1] - x)
            pixels = read(y, x, high, wide)
            below, beside = -high % factor, -wide % factor
            if below or beside:
                pixels = np.pad(pixels, ((0, below), (0, beside), (0, 0)), mode="edge")
            rows, columns = pixels.shape[0] // factor, pixels.shape[1] // factor
            means = pixels.reshape(rows, factor, columns, factor, 3).mean((1, 3))
            top, left = y // factor, x // factor
            small[top : top + rows, left : left + columns] = np.rint(means)
    return small, factor


def draw_outlines(canvas: Image.Image, parts: Iterable[Drawable], scale: float) -> None:
    """Draw outlines, in the colour of their class.

    Args:
        canvas: RGB.
        parts: In pixels of the large image.
        scale: Pixels of the canvas per pixel of the large image.
    """
    pen = ImageDraw.Draw(canvas)
    for part in parts:
        labels = part.labels.tolist()
        for label, ((y, x), mask) in zip(labels, part.mask_crops.placed(), strict=True):
            colour = PALETTE[label % len(PALETTE)]
            if max(mask.shape) * scale < SMALLEST:
                middle = (x + mask.shape[1] / 2) * scale, (y + mask.shape[0] / 2) * scale
                pen.point(middle, fill=colour)
                continue
            for rings in polygons(mask, y, x):
                for ring in rings:
                    pen.line([(px * scale, py * scale) for px, py in ring], fill=colour)
