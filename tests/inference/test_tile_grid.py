"""Do tiles cover an image, cores cover it once, and empty ones count as such?"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffinst.config import ConfigError
from diffinst.inference.tile_grid import TileGrid, alignment, has_tissue, is_flat

sides = st.integers(1, 400)


@given(height=sides, width=sides, overlap=st.integers(0, 20), align=st.integers(1, 16))
def test_cores_cover_every_pixel_once_and_lie_in_their_tile(
    height: int, width: int, overlap: int, align: int
) -> None:
    grid = TileGrid((height, width), 64, overlap, align)
    seen = np.zeros((height, width), int)
    for number in range(grid.rows):
        for tile in grid.row(number):
            y0, x0, y1, x1 = tile.core
            assert tile.rect[0] <= y0 < y1 <= tile.rect[2] <= height
            assert tile.rect[1] <= x0 < x1 <= tile.rect[3] <= width
            assert max(tile.size) <= 64
            seen[y0:y1, x0:x1] += 1
    assert (seen == 1).all()


@given(length=st.integers(65, 1000), overlap=st.integers(0, 32), align=st.integers(1, 16))
def test_neighbours_share_at_least_the_overlap(length: int, overlap: int, align: int) -> None:
    tiles = TileGrid((10, length), 64, overlap, align).row(0)
    for left, right in pairwise(tiles):
        assert left.rect[3] - right.rect[1] >= min(overlap, 64 - overlap)
        assert left.core[3] == right.core[1]


def test_an_image_smaller_than_a_tile_is_one_tile_of_its_size() -> None:
    ((tile,),) = [TileGrid((30, 40), 64, 16).row(0)]
    assert (tile.rect, tile.core) == ((0, 0, 30, 40), (0, 0, 30, 40))


@pytest.mark.parametrize(("tile", "overlap"), [(100, 128), (100, 51), (0, 0)])
def test_a_tile_smaller_than_twice_the_overlap_is_refused(tile: int, overlap: int) -> None:
    with pytest.raises(ConfigError, match=rf"tile is {tile} and overlap {overlap} .*--overlap"):
        TileGrid((500, 500), tile, overlap)
    with pytest.raises(ConfigError, match="overlap is -1; give pixels, from 0"):
        TileGrid((500, 500), 100, -1)


def test_steps_are_multiples_of_the_networks_stride() -> None:
    assert alignment(2.0) == 16  # 16 pixels zoomed by 2 are 32
    assert TileGrid((500, 500), 100, 10, align=16).step == 80


def test_a_seed_follows_from_the_place_alone() -> None:
    first, second = TileGrid((64, 120), 64, 8).row(0)
    assert first.seed(7) == 7
    assert second.seed(7) == TileGrid((64, 900), 64, 8).row(0)[1].seed(7)
    assert len({second.seed(7), second.seed(8), TileGrid((64, 900), 64, 8).row(0)[2].seed(7)}) == 3


def test_noise_is_flat_and_a_faint_object_is_not() -> None:
    pixels = np.full((64, 64, 3), 20, np.uint8)
    noisy = pixels + np.random.default_rng(0).integers(0, 9, pixels.shape).astype(np.uint8)
    assert is_flat(pixels) and is_flat(noisy)
    pixels[20:28, 20:28] += 12
    assert not is_flat(pixels)
    assert is_flat(np.zeros((2, 90, 3), np.uint8))  # less than a block


def test_bright_ground_holds_no_tissue_and_stained_or_dark_blocks_do() -> None:
    glass = np.full((64, 64, 3), 238, np.uint8)
    glass[:32] = 228  # a shade
    assert not has_tissue(glass)
    stained, dark = glass.copy(), glass.copy()
    stained[8:12, 8:12] = (225, 180, 220)
    dark[8:12, 8:12] = 120
    assert has_tissue(stained) and has_tissue(dark)
