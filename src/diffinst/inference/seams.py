"""Decides about objects at seams, row by row of tiles: each object once, cut ones stitched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np

from diffinst.inference.pieces import Piece, around, intersection
from diffinst.inference.tile_grid import Tile, TileGrid

SAME = 0.5
"""Two pieces of a class are one object from this IoU of their masks on; where a border cuts the
smaller one, from this fraction of it on, as it shows a part only."""
MOST_STITCHED = 2**27
"""Pixels of the window of a stitched object; larger ones stay in pieces."""


@dataclass
class SeamCounts:
    """What was decided.

    Attributes:
        objects: Handed on.
        duplicates: Pieces that were dropped, as another tile had the same object.
        stitched: Objects that were put together of several pieces.
        cut: Objects that touch the border of a tile and found no other piece.
        in_pieces: Objects that stay in pieces, being larger than `MOST_STITCHED`.
    """

    objects: int = 0
    duplicates: int = 0
    stitched: int = 0
    cut: int = 0
    in_pieces: int = 0


class Seams:
    """Takes tiles in reading order and hands each object on once, when no later tile can know more.

    1. An object belongs to the tile in whose core the centre of its mask lies.
    2. Two tiles may see the centre on either side of a border. Where both leave an object of an
       inner strip (a quarter of the overlap) to the other, the better one is kept.
    3. Where pieces of two tiles are the same object (`SAME`), the one that no border cuts is kept,
       then the one of the higher score.
    4. Two pieces that tile borders cut, and that agree where both tiles look, are put together:
       an object larger than the overlap is whole in no tile.

    Two rows of tiles are in memory.

    Args:
        grid: Of the tiles.
    """

    def __init__(self, grid: TileGrid) -> None:
        self.grid, self.counts = grid, SeamCounts()
        self._strip = grid.overlap / 4
        self._above: dict[int, list[Piece]] = {}
        self._row: dict[int, list[Piece]] = {}
        self._spare_above: dict[int, list[Piece]] = {}
        self._spare_row: dict[int, list[Piece]] = {}
        self._stitched: list[tuple[int, Piece]] = []  # with the last row of tiles that they reach

    def decided(
        self, rows: Iterable[tuple[list[Tile], list[list[Piece]]]]
    ) -> Iterator[list[Piece]]:
        """The objects of each tile, tiles without any omitted; stitched ones behind their row.

        Args:
            rows: The tiles of each row of the grid with the pieces found in them.
        """
        number = -1
        for tiles, found in rows:
            number = tiles[0].row
            for tile, pieces in zip(tiles, found, strict=True):
                self._take(tile, pieces)
            yield from self._finish(number - 1)
            self._above, self._row = self._row, {}
            self._spare_above, self._spare_row = self._spare_row, {}
        yield from self._finish(number)

    def _take(self, tile: Tile, pieces: list[Piece]) -> None:
        own, spare = [], []
        for piece in pieces:
            outside = _distance(piece.centre, tile)
            if outside == 0:
                own.append(piece)
            elif outside <= self._strip and not piece.cut:
                spare.append(piece)
        near = _near(tile, self._above, self._row)
        kept: list[Piece] = []
        for piece in own:
            winner = self._against_stitched(self._against(piece, near), tile.row)
            if winner is not None:
                kept.append(winner)
        self._row[tile.column] = kept
        others = _near(tile, self._spare_above, self._spare_row)
        self._spare_row[tile.column] = self._left_to_each_other(spare, others, kept, tile.column)

    def _against(self, piece: Piece, near: list[_Home]) -> Piece | None:
        """The piece, larger if it was stitched, unless a neighbour's is the better one."""
        for home in list(near):
            other = home.piece
            if other.label != piece.label:
                continue
            if piece.cut and other.cut and _one_object(piece, other):
                joined = self._joined(piece, other)
                if joined is not None:
                    piece = joined
                    home.leave(near)
            elif _same(piece, other):
                self.counts.duplicates += 1
                if _rank(other) <= _rank(piece):
                    return None
                home.leave(near)
        return piece

    def _against_stitched(self, piece: Piece | None, row: int) -> Piece | None:
        """The same against objects of several tiles, which the piece may become a part of."""
        if piece is None:
            return None
        left: list[tuple[int, Piece]] = []
        for last, other in self._stitched:
            if other.label == piece.label and piece.cut and _one_object(piece, other):
                joined = self._joined(piece, other)
                if joined is not None:
                    piece = joined
                    continue
            elif other.label == piece.label and _same(piece, other) and len(piece.rects) == 1:
                self.counts.duplicates += 1
                self._stitched = [*left, *self._stitched[len(left) :]]
                return None
            left.append((last, other))
        self._stitched = left
        if len(piece.rects) == 1:
            return piece
        self._stitched.append((row, piece))
        return None

    def _joined(self, a: Piece, b: Piece) -> Piece | None:
        y0, x0, y1, x1 = rect = around(a.rect, b.rect)
        if (y1 - y0) * (x1 - x0) > MOST_STITCHED:
            self.counts.in_pieces += 1
            return None
        mask = b.within(rect)
        mask[a.y - y0 : a.rect[2] - y0, a.x - x0 : a.rect[3] - x0] |= a.mask
        low, high = np.minimum(a.box, b.box).tolist(), np.maximum(a.box, b.box).tolist()
        box = (low[0], low[1], high[2], high[3])
        score = max(a.score, b.score)
        return Piece(a.label, score, box, y0, x0, mask, (*b.rects, *a.rects), True)

    def _left_to_each_other(
        self, spare: list[Piece], others: list[_Home], kept: list[Piece], column: int
    ) -> list[Piece]:
        """Keeps what two tiles leave to each other; returns what is left for later tiles."""
        left = []
        for piece in spare:
            pair = next((home for home in others if _same_class(piece, home.piece)), None)
            if pair is None:
                left.append(piece)
                continue
            pair.leave(others)
            better = min((pair.piece, piece), key=_rank)
            if not self._is_known(better, column):
                kept.append(better)
        return left

    def _is_known(self, piece: Piece, column: int) -> bool:
        """Whether tiles near a column, of which or beside which the piece is, have it already."""
        reach = 2 + self.grid.tile // self.grid.step  # columns further away share no pixel with it
        near = range(column - reach, column + reach + 1)
        known = (p for row in (self._above, self._row) for k in near for p in row.get(k, []))
        stitched = (other for _, other in self._stitched)
        return any(_same_class(piece, other) for other in chain(known, stitched))

    def _finish(self, row: int) -> Iterator[list[Piece]]:
        """Hands on what the row after this one has not changed."""
        for _, done in sorted(self._above.items()):
            if done:
                self.counts.objects += len(done)
                self.counts.cut += sum(piece.cut for piece in done)
                yield done
        whole = [piece for last, piece in self._stitched if last <= row]
        self._stitched = [(last, piece) for last, piece in self._stitched if last > row]
        if whole:
            self.counts.objects += len(whole)
            self.counts.stitched += len(whole)
            yield sorted(whole, key=lambda piece: piece.rect)


@dataclass(frozen=True, eq=False)
class _Home:
    """A piece of a neighbouring tile and the list that it is in."""

    piece: Piece
    pieces: list[Piece]

    def leave(self, near: list[_Home]) -> None:
        self.pieces[:] = [piece for piece in self.pieces if piece is not self.piece]
        near[:] = [home for home in near if home is not self]


def _near(tile: Tile, above: dict[int, list[Piece]], row: dict[int, list[Piece]]) -> list[_Home]:
    """The pieces of the tiles before that reach into a tile."""
    homes = [above.get(tile.column + k, []) for k in (-1, 0, 1)]
    homes.append(row.get(tile.column - 1, []))
    return [
        _Home(piece, pieces)
        for pieces in homes
        for piece in pieces
        if intersection(piece.rect, tile.rect) is not None
    ]


def _distance(centre: tuple[float, float], tile: Tile) -> float:
    """How far outside the core of a tile a centre lies; 0 inside."""
    y0, x0, y1, x1 = tile.core
    y, x = centre
    inside = y0 <= y < y1 and x0 <= x < x1
    return 0.0 if inside else max(y0 - y, y - y1, x0 - x, x - x1, 1e-9)


def _rank(piece: Piece) -> tuple[bool, float]:
    return piece.cut, -piece.score


def _same_class(a: Piece, b: Piece) -> bool:
    return a.label == b.label and _same(a, b)


def _same(a: Piece, b: Piece) -> bool:
    """Whether two pieces are one object; see `SAME`."""
    shared = intersection(a.rect, b.rect)
    if shared is None:
        return False
    both = np.count_nonzero(a.within(shared) & b.within(shared))
    sizes = np.count_nonzero(a.mask), np.count_nonzero(b.mask)
    smaller = min((sizes[0], not a.cut), (sizes[1], not b.cut))  # of two alike the cut one
    part = not smaller[1]
    return bool(both >= SAME * (smaller[0] if part else sum(sizes) - both))


def _one_object(a: Piece, b: Piece) -> bool:
    """Whether two cut pieces agree where a tile of each looks."""
    if intersection(a.rect, b.rect) is None:
        return False
    for first in a.rects:
        for second in b.rects:
            seen = intersection(first, second)
            if seen is None or first == second:
                continue
            mine, other = a.within(seen), b.within(seen)
            either = np.count_nonzero(mine | other)
            if either and np.count_nonzero(mine & other) >= SAME * either:
                return True
    return False
