"""Is each object of a tiled image handed on exactly once, whole, whatever border cuts it?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from diffinst.inference.pieces import Piece, intersection
from diffinst.inference.seams import Seams
from diffinst.inference.tile_grid import Rect, Tile, TileGrid

Mask = NDArray[np.bool_]
Disc = tuple[float, float, float]
"""y, x and radius."""


def disc(shape: tuple[int, int], y: float, x: float, radius: float) -> Mask:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.asarray((rows + 0.5 - y) ** 2 + (columns + 0.5 - x) ** 2 <= radius**2)


def piece(of: Disc, tile: Tile, shape: tuple[int, int], score: float = 0.9) -> Piece | None:
    """What a perfect model sees of a disc in a tile."""
    y0, x0, y1, x1 = tile.rect
    part = disc(tile.size, of[0] - y0, of[1] - x0, of[2])
    rows, columns = np.flatnonzero(part.any(1)), np.flatnonzero(part.any(0))
    if not len(rows):
        return None
    part = part[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    y, x = y0 + int(rows[0]), x0 + int(columns[0])
    bottom, right = y + part.shape[0], x + part.shape[1]
    cut = (
        (y == y0 > 0) or (x == x0 > 0) or (bottom == y1 < shape[0]) or (right == x1 < shape[1])
    )  # fmt: skip
    box = (float(x), float(y), float(right), float(bottom))
    return Piece(0, score, box, y, x, part, (tile.rect,), cut)


def seen(
    grid: TileGrid, discs: list[Disc], rng: np.random.Generator | None = None
) -> Iterator[tuple[list[Tile], list[list[Piece]]]]:
    """Rows of tiles with all that is in them, moved by up to a pixel in each if there is an rng."""
    for number in range(grid.rows):
        tiles = grid.row(number)
        found: list[list[Piece]] = []
        for tile in tiles:
            found.append([])
            for y, x, radius in discs:
                dy, dx = (0, 0) if rng is None else rng.integers(-1, 2, 2).tolist()
                one = piece((y + dy, x + dx, radius), tile, grid.shape)
                found[-1] += [one] if one is not None else []
        yield tiles, found


def full(piece: Piece, shape: tuple[int, int]) -> Mask:
    return piece.within((0, 0, *shape))


@pytest.mark.parametrize("at", [(50, 88), (50, 90), (50, 92), (90, 90), (80, 170), (99, 99)])
def test_a_small_object_at_a_seam_comes_once_and_whole(at: tuple[int, int]) -> None:
    grid = TileGrid((180, 260), tile=100, overlap=20)
    seams = Seams(grid)
    ((found,),) = seams.decided(seen(grid, [(*at, 7)]))
    assert np.array_equal(full(found, grid.shape), disc(grid.shape, *at, 7))
    assert not found.cut
    assert (seams.counts.objects, seams.counts.stitched) == (1, 0)


def test_an_object_larger_than_the_overlap_is_stitched() -> None:
    grid = TileGrid((260, 340), tile=100, overlap=20)  # 3 rows, 4 columns
    seams = Seams(grid)
    ((found,),) = seams.decided(seen(grid, [(128, 170, 95)]))
    assert np.array_equal(full(found, grid.shape), disc(grid.shape, 128, 170, 95))
    assert found.box == (75.0, 33.0, 265.0, 223.0)
    assert seams.counts.stitched == 1


def test_two_touching_objects_at_a_seam_stay_two() -> None:
    grid = TileGrid((100, 180), tile=100, overlap=20)
    discs: list[Disc] = [(50, 84, 6), (50, 96, 6)]
    found = [p for tile in Seams(grid).decided(seen(grid, discs)) for p in tile]
    assert sorted(p.x for p in found) == [78, 90]


def test_centres_that_two_tiles_see_on_either_side_come_once() -> None:
    grid = TileGrid((60, 180), tile=100, overlap=20)  # the border of the cores is x = 90
    left, right = grid.row(0)
    for shifts in [(0, 2), (2, 0)]:  # both claim it; both leave it to the other
        pieces = [
            piece((30, 89 + shift, 5), tile, grid.shape)
            for shift, tile in zip(shifts, (left, right), strict=True)
        ]
        rows = [([left, right], [[p] if p else [] for p in pieces])]
        assert [len(tile) for tile in Seams(grid).decided(rows)] == [1]


def test_the_uncut_one_and_then_the_better_one_of_two_is_kept() -> None:
    grid = TileGrid((60, 180), tile=100, overlap=20)
    left, right = grid.row(0)
    first = piece((30, 89, 5), left, grid.shape, score=0.7)
    second = piece((30, 91, 5), right, grid.shape, score=0.8)
    assert first is not None and second is not None
    seams = Seams(grid)
    ((kept,),) = seams.decided([([left, right], [[first], [second]])])
    assert kept is second
    assert seams.counts.duplicates == 1


def block(tile: Tile, y: int, x: int, side: int, score: float, cut: bool = False) -> Piece:
    box = (float(x), float(y), float(x + side), float(y + side))
    return Piece(0, score, box, y, x, np.ones((side, side), np.bool_), (tile.rect,), cut)


def test_a_fragment_of_a_whole_object_does_not_take_its_place() -> None:
    grid = TileGrid((60, 180), tile=100, overlap=20)  # the border of the cores is x = 90
    left, right = grid.row(0)
    whole, fragment = block(left, 20, 81, 16, 0.80), block(right, 24, 90, 4, 0.85)  # 256, 16 px
    seams = Seams(grid)
    found = [p for tile in seams.decided([([left, right], [[whole], [fragment]])]) for p in tile]
    assert found == [whole, fragment]  # IoU 16 / 256
    assert seams.counts.duplicates == 0


def test_of_two_whole_ones_that_share_half_of_both_the_better_one_is_kept() -> None:
    grid = TileGrid((60, 180), tile=100, overlap=20)
    left, right = grid.row(0)
    first = block(left, 20, 83, 12, 0.80)  # columns 83 to 95
    for x, count in ((87, 1), (88, 2)):  # they share 8 or 7 of 12 columns: IoU 8 / 16, 7 / 17
        second = block(right, 20, x, 12, 0.85)
        tiles = Seams(grid).decided([([left, right], [[first], [second]])])
        assert sum(len(tile) for tile in tiles) == count


def test_a_cut_part_of_a_whole_object_is_dropped() -> None:
    grid = TileGrid((60, 180), tile=100, overlap=20)
    left, right = grid.row(0)
    whole, part = block(left, 20, 81, 16, 0.6), block(right, 20, 90, 8, 0.9, cut=True)
    seams = Seams(grid)
    ((kept,),) = seams.decided([([left, right], [[whole], [part]])])
    assert kept is whole and seams.counts.duplicates == 1


def test_another_class_is_another_object() -> None:
    grid = TileGrid((60, 180), tile=100, overlap=20)
    left, right = grid.row(0)
    first = piece((30, 89, 5), left, grid.shape)
    second = piece((30, 91, 5), right, grid.shape)
    assert first is not None and second is not None
    other = Piece(1, 0.9, second.box, second.y, second.x, second.mask, second.rects, False)
    found = Seams(grid).decided([([left, right], [[first], [other]])])
    assert sum(len(tile) for tile in found) == 2


@pytest.mark.parametrize("seed", range(3))
def test_many_objects_of_all_sizes_come_once_each(seed: int) -> None:
    rng = np.random.default_rng(seed)
    grid = TileGrid((300, 420), tile=100, overlap=24)
    discs: list[Disc] = []
    labels = np.zeros(grid.shape, np.int64)
    for _ in range(200):
        radius = float(rng.choice([5, 6, 9, 25, 60]))
        y, x = rng.uniform(3, grid.shape[0] - 3), rng.uniform(3, grid.shape[1] - 3)
        if not labels[disc(grid.shape, y, x, radius + 3)].any():
            discs.append((y, x, radius))
            labels[disc(grid.shape, y, x, radius)] = len(discs)
    found = [p for tile in Seams(grid).decided(seen(grid, discs, rng)) for p in tile]
    hits = np.zeros(len(discs) + 1, int)
    for one in found:
        y0, x0, y1, x1 = one.rect
        hits[np.bincount(labels[y0:y1, x0:x1][one.mask], minlength=len(hits)).argmax()] += 1
    assert hits[0] == 0 and (hits[1:] == 1).all()


class Counted(Piece):
    """Counts how often one is compared."""

    looks: ClassVar[int] = 0

    @property
    def rect(self) -> Rect:
        Counted.looks += 1
        return super().rect


def looks(columns: int) -> int:
    """At pieces of one row: three in each core, and one at each border that both tiles leave."""
    grid = TileGrid((60, 20 + 80 * columns), tile=100, overlap=20)
    tiles = grid.row(0)
    found: list[list[Piece]] = []
    for tile in tiles:
        left, right = tile.core[1], tile.core[3]
        middle = (left + right) / 2
        discs: list[Disc] = [(10, middle, 4), (30, middle, 4), (50, middle, 4)]
        discs += [(30, left - 1, 5)] if tile.column else []
        discs += [(30, right + 1, 5)] if tile.column < len(tiles) - 1 else []
        seen = [p for p in (piece(one, tile, grid.shape) for one in discs) if p is not None]
        found.append(
            [Counted(p.label, p.score, p.box, p.y, p.x, p.mask, p.rects, p.cut) for p in seen]
        )
    Counted.looks = 0
    handed = sum(len(pieces) for pieces in Seams(grid).decided([(tiles, found)]))
    assert handed == 3 * columns + columns - 1
    return Counted.looks


def test_twice_the_width_is_twice_the_work() -> None:
    assert looks(80) < 2.3 * looks(40)


def test_nothing_found_is_nothing_handed_on() -> None:
    grid = TileGrid((300, 420), tile=100, overlap=24)
    assert list(Seams(grid).decided(seen(grid, []))) == []


def test_rectangles_that_only_touch_share_nothing() -> None:
    assert intersection((0, 0, 2, 2), (0, 2, 2, 4)) is None
