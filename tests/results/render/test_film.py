"""Film strips: tiles in order, boxes and masks as asked, an object's colour kept throughout."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from diffinst.results.instances import Instances
from diffinst.results.render.film import Frame, film_strip
from diffinst.results.render.marks import PALETTE


def test_film_strip_is_a_grid_of_captioned_tiles(
    scene: np.ndarray, rectangles: Callable[..., Instances]
) -> None:
    found = rectangles((10, 10, 40, 30))
    noise = Frame("noise", found, boxes_only=True)
    frames = [noise, *(Frame(f"stage {i}", found) for i in range(1, 7))]
    one = film_strip(scene, frames[:1], tile_width=240)
    row = film_strip(scene, frames[:3], tile_width=240)
    grid = film_strip(scene, frames, columns=3, tile_width=240)
    gap = (one.width - 240) // 2
    assert row.width == 3 * 240 + 4 * gap
    assert grid.width == row.width
    assert grid.height - gap == 3 * (one.height - gap)
    assert one.height > 160 + gap
    assert film_strip(scene, frames, columns=3, tile_width=240) == grid


def test_the_noise_tile_shows_boxes_only(
    scene: np.ndarray, rectangles: Callable[..., Instances]
) -> None:
    found = rectangles((30, 20, 90, 60))
    masks = film_strip(scene, [Frame("a", found)], tile_width=120)
    boxes = film_strip(scene, [Frame("a", found, boxes_only=True)], tile_width=120)
    gap = (boxes.width - 120) // 2
    tile = np.asarray(boxes)[gap : gap + 80, gap : gap + 120]
    assert np.array_equal(tile[40, 60], scene[40, 60])
    assert tuple(tile[20, 60]) == PALETTE[0]
    assert not np.array_equal(np.asarray(masks)[gap + 40, gap + 60], scene[40, 60])


def test_objects_keep_their_colour_through_the_film(
    scene: np.ndarray, rectangles: Callable[..., Instances]
) -> None:
    # In the first frame alone the right-hand object would take the first colour.
    last = rectangles((10, 20, 50, 60), (70, 20, 110, 60))
    strip = film_strip(scene, [Frame("a", last[1]), Frame("b", last)], tile_width=120)
    gap = (strip.width - 240) // 3
    tiles = np.asarray(strip)[gap : gap + 80]
    first, second = tiles[:, gap : gap + 120], tiles[:, 2 * gap + 120 : 2 * gap + 240]
    assert np.array_equal(first[20:60, 70:110], second[20:60, 70:110])
    assert tuple(first[20, 90]) == PALETTE[1]


def test_frames_without_instances_show_the_image(
    scene: np.ndarray, rectangles: Callable[..., Instances]
) -> None:
    strip = film_strip(scene, [Frame("nothing yet", rectangles())] * 2, tile_width=120)
    gap = (strip.width - 240) // 3
    assert np.array_equal(np.asarray(strip)[gap : gap + 80, gap : gap + 120], scene)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((80, 121, 3), dtype=np.uint8), r"\(80, 120\)"),
        (np.zeros((80, 120), dtype=np.uint8), "RGB"),
        (np.zeros((80, 120, 3)), "float64"),
    ],
)
def test_another_image_is_refused(
    rectangles: Callable[..., Instances], image: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        film_strip(image, [Frame("a", rectangles())])


def test_impossible_grids_are_refused(
    scene: np.ndarray, rectangles: Callable[..., Instances]
) -> None:
    with pytest.raises(ValueError, match="0 images"):
        film_strip(scene, [])
    with pytest.raises(ValueError, match="columns=0"):
        film_strip(scene, [Frame("a", rectangles())], columns=0)
    with pytest.raises(ValueError, match="tile_width=0"):
        film_strip(scene, [Frame("a", rectangles())], tile_width=0)
