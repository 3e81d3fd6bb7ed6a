"""Outlines of a mask along the edges of its pixels: filled, they give the very same pixels."""

from __future__ import annotations

from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Point: TypeAlias = tuple[int, int]
"""(x, y) of a pixel's corner."""
Ring: TypeAlias = list[Point]
"""Corners of a closed line, the first one again at the end."""

_RIGHT, _DOWN, _LEFT, _UP = (1, 0), (0, 1), (-1, 0), (0, -1)


def polygons(mask: NDArray[np.bool_], y: int = 0, x: int = 0) -> list[list[Ring]]:
    """The parts of a mask, each as its outer ring followed by those of its holes.

    Parts hang together by the sides of pixels, not by corners. Outer rings run with the mask on
    their right as seen in the image (y down), holes the other way round.

    Args:
        mask: (h, w).
        y: Row of the image that its first row is.
        x: Column of its first column.

    Example:
        >>> polygons(np.ones((1, 2), bool))
        [[[(0, 0), (2, 0), (2, 1), (0, 1), (0, 0)]]]
    """
    rings = _rings(mask)
    outer = [ring for ring in rings if _area(ring) > 0]
    parts = [[ring] for ring in outer]
    for hole in rings:
        if _area(hole) < 0:
            inside = [part for part in parts if len(parts) == 1 or _holds(part[0], hole)]
            min(inside, key=lambda part: _area(part[0])).append(hole)
    return [[[(px + x, py + y) for px, py in ring] for ring in part] for part in parts]


def _rings(mask: NDArray[np.bool_]) -> list[Ring]:
    """Closed lines around what is set, on its left-hand side nothing."""
    framed = np.pad(mask, 1)
    inside = framed[1:-1, 1:-1]
    edges: dict[Point, list[tuple[Point, Point]]] = {}  # from a corner: direction, next corner

    def add(where: NDArray[np.bool_], start: Point, way: Point) -> None:
        for row, column in np.argwhere(where).tolist():
            at = (column + start[0], row + start[1])
            edges.setdefault(at, []).append((way, (at[0] + way[0], at[1] + way[1])))

    add(inside & ~framed[:-2, 1:-1], (0, 0), _RIGHT)
    add(inside & ~framed[1:-1, 2:], (1, 0), _DOWN)
    add(inside & ~framed[2:, 1:-1], (1, 1), _LEFT)
    add(inside & ~framed[1:-1, :-2], (0, 1), _UP)
    rings = []
    while edges:
        first = at = next(iter(edges))
        ring: Ring = []
        came, first_way = (0, 0), edges[first][0][0]
        while not (ring and at == first and _closes(edges.get(at), came, first_way)):
            ways = edges[at]
            way, following = ways.pop(_right_turn(came, [way for way, _ in ways]))
            if not ways:
                del edges[at]
            if way != came:
                ring.append(at)
            at, came = following, way
        if came == first_way:  # the line began in the middle of a side
            ring.pop(0)
        rings.append([*ring, ring[0]])
    return rings


def _closes(ways: list[tuple[Point, Point]] | None, came: Point, first: Point) -> bool:
    """Whether a line that is back where it began goes on as it began."""
    return not ways or (-came[1], came[0]) == first


def _right_turn(came: Point, ways: list[Point]) -> int:
    """Where two pixels meet at a corner only: the way that stays with the same pixel."""
    right = (-came[1], came[0])
    return ways.index(right) if right in ways else 0


def _way(start: Point, end: Point) -> Point:
    return int(np.sign(end[0] - start[0])), int(np.sign(end[1] - start[1]))


def _area(ring: Ring) -> float:
    return sum(a[0] * b[1] - b[0] * a[1] for a, b in pairwise(ring)) / 2


def _holds(ring: Ring, hole: Ring) -> bool:
    """Whether the pixel inside the first corner of a hole lies within a ring, by ray casting."""
    (x0, y0), (x1, y1) = hole[0], hole[1]
    way = _way((x0, y0), (x1, y1))
    x, y = x0 + way[0] * 0.5 - way[1] * 0.5, y0 + way[1] * 0.5 + way[0] * 0.5
    crossed = 0
    for a, b in pairwise(ring):
        if a[0] == b[0] and a[0] > x and min(a[1], b[1]) <= y < max(a[1], b[1]):
            crossed += 1
    return crossed % 2 == 1
