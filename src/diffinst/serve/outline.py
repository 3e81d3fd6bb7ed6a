"""The outlines of a mask as polygons along the edges of its pixels, holes included."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ring = list[tuple[int, int]]
"""Corners (x, y) in their order, the first not repeated; clockwise on the screen around what is
there, the other way around a hole."""


def rings(mask: NDArray[np.bool_]) -> list[Ring]:
    """All outlines; pieces that touch at a corner alone are apart.

    Args:
        mask: (height, width).

    Example:
        >>> rings(np.array([[True, True]]))
        [[(0, 0), (2, 0), (2, 1), (0, 1)]]
    """
    there = np.pad(mask.astype(bool), 1)
    inside = there[1:-1, 1:-1]
    after: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # What is there lies to the right of each edge: top edges go right, right ones down, ...
    for away, (x0, y0), (x1, y1) in (
        (there[:-2, 1:-1], (0, 0), (1, 0)),
        (there[1:-1, 2:], (1, 0), (1, 1)),
        (there[2:, 1:-1], (1, 1), (0, 1)),
        (there[1:-1, :-2], (0, 1), (0, 0)),
    ):
        for y, x in np.argwhere(inside & ~away).tolist():
            after.setdefault((x + x0, y + y0), []).append((x + x1, y + y1))
    found = []
    while after:
        first = min(after)
        ring, here = [first], after[first][0]
        _take(after, first, here)
        while here != first:
            ring.append(here)
            following = _turn(ring[-2], here, after[here])
            _take(after, here, following)
            here = following
        found.append(_corners(ring))
    return found


def signed_area(ring: Ring) -> float:
    """Pixels inside; negative for a hole."""
    following = [*ring[1:], ring[0]]
    twice = sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(ring, following, strict=True))
    return twice / 2


def polygons(mask: NDArray[np.bool_]) -> list[list[Ring]]:
    """Each piece of a mask: its outline, then those of its holes; the largest piece first."""
    found = sorted(rings(mask), key=signed_area, reverse=True)
    pieces = [[ring] for ring in found if signed_area(ring) > 0]
    for hole in (ring for ring in found if signed_area(ring) < 0):
        # The smallest piece around it; a corner of a hole lies on or inside its piece.
        around = [piece for piece in reversed(pieces) if _holds(piece[0], hole)]
        around[0].append(hole)
    return pieces


def _take(
    after: dict[tuple[int, int], list[tuple[int, int]]], here: tuple[int, int], to: tuple[int, int]
) -> None:
    after[here].remove(to)
    if not after[here]:
        del after[here]


def _turn(
    before: tuple[int, int], here: tuple[int, int], to: list[tuple[int, int]]
) -> tuple[int, int]:
    """Where two ways lead on, the one to the right: it stays at the same pixel."""
    right = (here[0] - (here[1] - before[1]), here[1] + (here[0] - before[0]))
    return right if right in to else to[0]


def _corners(ring: Ring) -> Ring:
    """Without the points on straight lines."""
    count = len(ring)
    return [
        (x, y)
        for i, (x, y) in enumerate(ring)
        if not (
            ring[i - 1][0] == x == ring[(i + 1) % count][0]
            or ring[i - 1][1] == y == ring[(i + 1) % count][1]
        )
    ]


def _holds(ring: Ring, hole: Ring) -> bool:
    """Whether the first pixel of a hole lies inside a ring: a ray to the left crosses it oddly."""
    corner = min(hole)  # the left end of the hole's highest edge there
    x, y = corner[0] + 0.5, corner[1] + 0.5
    following = [*ring[1:], ring[0]]
    crossed = sum(
        x0 == x1 and x0 < x and min(y0, y1) < y < max(y0, y1)
        for (x0, y0), (x1, y1) in zip(ring, following, strict=True)
    )
    return crossed % 2 == 1
