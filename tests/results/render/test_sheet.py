"""Contact sheets: a grid with few gaps, captions no wider than their tile."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from diffinst.results.render.sheet import contact_sheet


@pytest.mark.parametrize(
    ("count", "columns"), [(1, 1), (5, 5), (6, 3), (7, 4), (8, 4), (9, 3), (10, 5), (25, 5)]
)
def test_the_default_grid_leaves_few_gaps(count: int, columns: int) -> None:
    tile = Image.new("RGB", (40, 20))
    by_default = contact_sheet([(tile, "x")] * count, tile_width=40)
    assert by_default == contact_sheet([(tile, "x")] * count, columns=columns, tile_width=40)


def test_long_titles_are_cut_to_their_tile() -> None:
    tile = Image.new("RGB", (60, 30))
    sheet = np.asarray(contact_sheet([(tile, "a title far too long for this tile")], tile_width=60))
    gap = (sheet.shape[1] - 60) // 2
    assert (sheet[gap + 31 :, gap : gap + 60] < 128).any()
    assert (sheet[:, gap + 61 :] > 128).all()


def test_a_heading_stands_above_the_grid() -> None:
    tiles = [(Image.new("RGB", (60, 30), (200, 0, 0)), "a")] * 2
    plain = np.asarray(contact_sheet(tiles, tile_width=60))
    headed = np.asarray(contact_sheet(tiles, tile_width=60, heading="iteration 7" * 10))
    extra = headed.shape[0] - plain.shape[0]
    gap = (plain.shape[1] - 2 * 60) // 3
    assert extra > 11 and plain.shape[1] == headed.shape[1]
    assert np.array_equal(headed[extra + gap :], plain[gap:])
    written = headed[: extra + gap - 1]
    assert (written < 128).any()
    assert (written[:, : gap - 1] > 128).all() and (written[:, -gap + 1 :] > 128).all()
