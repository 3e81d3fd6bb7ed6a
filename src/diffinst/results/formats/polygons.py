"""Masks as polygons that every common reader fills with the very same pixels.

Readers disagree on where a pixel is: pycocotools fills what lies within the line, pixels being
squares; Pillow and OpenCV cut coordinates to whole numbers, which are pixels, and fill the line
itself, too. Lines a quarter of a pixel inside the mask's edge are the same mask for all of them.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from diffinst.results.outlines import Ring, polygons

Line: TypeAlias = list[tuple[float, float]]
"""(x, y) of the corners of a closed line in pixels, the first one not again at the end."""

INSET = 0.25  # pixels; anything between 0.1 and 0.4 serves pycocotools, which rounds to fifths


def parts(mask: NDArray[np.bool_], y: int = 0, x: int = 0) -> list[list[Line]]:
    """The parts of a mask, each as its outer line followed by those of its holes.

    Args:
        mask: (h, w).
        y: Row of the image that its first row is.
        x: Column of its first column.

    Example:
        >>> parts(np.ones((1, 2), bool))
        [[[(0.25, 0.25), (1.75, 0.25), (1.75, 0.75), (0.25, 0.75)]]]
    """
    return [[_inset(ring) for ring in part] for part in polygons(mask, y, x)]


def joined(lines: list[Line]) -> Line:
    """Several lines as one: bridges lead to the next one and back the same way.

    What is filled stays the same for who counts crossings (pycocotools); who fills the line itself
    draws the bridges, too: between the parts, they are a pixel wide.
    """
    path = np.array(lines[0], np.float64).reshape(-1, 2)
    for line in lines[1:]:
        other = np.array(line, np.float64)
        steps = np.abs(path[:, None] - other[None]).sum(axis=2)
        here, there = np.unravel_index(int(steps.argmin()), steps.shape)
        loop = np.roll(other, -int(there), axis=0)
        path = np.concatenate([path[: here + 1], loop, loop[:1], path[here:]])
    return [(float(x), float(y)) for x, y in path]


def _inset(ring: Ring) -> Line:
    """The line inside, the mask being on the right-hand side of the ring."""
    ways = [(np.sign(b[0] - a[0]), np.sign(b[1] - a[1])) for a, b in pairwise(ring)]
    line = []
    for i, (x, y) in enumerate(ring[:-1]):
        (dx, dy), (ex, ey) = ways[i - 1], ways[i]
        line.append((x - INSET * float(dy + ey), y + INSET * float(dx + ex)))
    return line
