"""Do images of results show every instance, leave the rest alone and always look the same?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from diffinst.results.crops import CroppedMasks
from diffinst.results.instances import Instances
from diffinst.results.render.marks import PALETTE
from diffinst.results.render.overlay import Frame, contact_sheet, film_strip, overlay

SIZE = (80, 120)
REACH = 2  # at this size lines are 1 pixel wide: half of it plus a pixel of smoothing


def scene() -> np.ndarray:
    ramp = np.arange(SIZE[0] * SIZE[1] * 3, dtype=np.int64) % 90 + 60
    return ramp.astype(np.uint8).reshape(*SIZE, 3)


def rectangles(*corners: tuple[int, int, int, int]) -> Instances:
    """Instances whose masks are their boxes (x0, y0, x1, y1); scores fall from 0.9."""
    masks = torch.zeros(len(corners), *SIZE, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, corners, strict=True):
        mask[y0:y1, x0:x1] = True
    return Instances(
        boxes=torch.tensor(corners, dtype=torch.float32).reshape(-1, 4),
        scores=0.9 - 0.01 * torch.arange(len(corners), dtype=torch.float32),
        labels=torch.zeros(len(corners), dtype=torch.int64),
        mask_crops=CroppedMasks.from_dense(masks),
        image_size=SIZE,
        class_names=("cat",),
    )


def drawn(instances: Instances, **options: float) -> np.ndarray:
    return np.asarray(overlay(scene(), instances, show_labels=False, **options))


def test_pixels_change_inside_masks_and_nowhere_beyond_the_contour() -> None:
    found = rectangles((10, 10, 40, 30), (70, 40, 71, 41), (100, 60, 120, 80))
    changed = (drawn(found) != scene()).any(axis=2)
    assert changed[found.masks.any(dim=0).numpy()].all()
    near = np.zeros(SIZE, dtype=bool)
    for x0, y0, x1, y1 in found.boxes.int().tolist():
        near[max(0, y0 - REACH) : y1 + REACH, max(0, x0 - REACH) : x1 + REACH] = True
    assert not changed[~near].any()


def test_a_fill_is_the_mean_of_image_and_colour_at_half_opacity() -> None:
    found = rectangles((10, 10, 40, 30))
    inside = drawn(found)[20, 25].astype(float)
    assert np.abs(inside - (scene()[20, 25] + np.array(PALETTE[0])) / 2).max() <= 0.5
    assert np.array_equal(drawn(found, alpha=0)[20, 25], scene()[20, 25])
    assert tuple(drawn(found, alpha=1)[20, 25]) == PALETTE[0]


def test_smaller_instances_lie_on_top_whatever_their_order() -> None:
    large, small = (10, 10, 60, 60), (30, 30, 40, 40)
    for corners in ((large, small), (small, large)):
        color = np.array(PALETTE[corners.index(small)])
        assert tuple(drawn(rectangles(*corners), alpha=1)[35, 35]) == tuple(color)


def test_without_instances_the_image_comes_back() -> None:
    same = overlay(scene(), rectangles(), show_boxes=True)
    assert np.array_equal(np.asarray(same), scene())


def test_an_empty_mask_draws_nothing_but_its_box() -> None:
    found = replace(
        rectangles((10, 10, 40, 30)),
        mask_crops=CroppedMasks(
            torch.tensor([[10, 10, 0, 0]]), (torch.zeros(0, 0, dtype=torch.bool),), SIZE
        ),
    )
    assert np.array_equal(drawn(found), scene())
    boxed = np.asarray(overlay(scene(), found, show_boxes=True, show_labels=False))
    # Corners at (10, 10) and (39, 29): the far edges lie outside the last pixel.
    edge = np.zeros(SIZE, dtype=bool)
    edge[10:30, 10:40] = True
    edge[11:29, 11:39] = False
    assert np.array_equal((boxed != scene()).any(axis=2), edge)
    assert tuple(boxed[29, 39]) == PALETTE[0]


def test_drawing_does_not_change_its_input_and_repeats_itself() -> None:
    image, found = scene(), rectangles((10, 10, 40, 30), (30, 20, 60, 50))
    first = overlay(image, found, show_boxes=True)
    assert np.array_equal(image, scene())
    assert first == overlay(image, found, show_boxes=True)
    assert first.size == (SIZE[1], SIZE[0])


def test_labels_are_written_on_large_instances_and_left_away_in_crowds() -> None:
    large = rectangles((10, 10, 110, 70))
    assert not np.array_equal(np.asarray(overlay(scene(), large)), drawn(large))
    crowd = rectangles(*((x, y, x + 8, y + 8) for x in range(5, 105, 12) for y in (5, 25, 45)))
    assert np.array_equal(np.asarray(overlay(scene(), crowd)), drawn(crowd))


def test_one_labelled_object_among_many_small_ones_stays_without() -> None:
    # The first could carry a label: 80 x 40 pixels. The others together have a larger area.
    crowd = [(x, y, x + 10, y + 20) for x in range(0, 120, 10) for y in (40, 60)]
    found = rectangles((20, 0, 100, 40), *crowd)
    assert np.array_equal(np.asarray(overlay(scene(), found)), drawn(found))


def test_of_two_touching_labels_the_higher_score_is_written() -> None:
    twins = rectangles((10, 10, 110, 70), (12, 12, 112, 72))
    labelled = np.asarray(overlay(scene(), twins))
    alone = np.asarray(overlay(scene(), twins[0]))
    assert np.array_equal(labelled[10:24, 40:80], alone[10:24, 40:80])


def test_film_strip_is_a_grid_of_captioned_tiles() -> None:
    found = rectangles((10, 10, 40, 30))
    noise = Frame("noise", found, boxes_only=True)
    frames = [noise, *(Frame(f"stage {i}", found) for i in range(1, 7))]
    one = film_strip(scene(), frames[:1], tile_width=240)
    row = film_strip(scene(), frames[:3], tile_width=240)
    grid = film_strip(scene(), frames, columns=3, tile_width=240)
    gap = (one.width - 240) // 2
    assert row.width == 3 * 240 + 4 * gap
    assert grid.width == row.width
    assert grid.height - gap == 3 * (one.height - gap)
    assert one.height > 160 + gap
    assert film_strip(scene(), frames, columns=3, tile_width=240) == grid


def test_the_noise_tile_shows_boxes_only() -> None:
    found = rectangles((30, 20, 90, 60))
    masks = film_strip(scene(), [Frame("a", found)], tile_width=120)
    boxes = film_strip(scene(), [Frame("a", found, boxes_only=True)], tile_width=120)
    gap = (boxes.width - 120) // 2
    tile = np.asarray(boxes)[gap : gap + 80, gap : gap + 120]
    assert np.array_equal(tile[40, 60], scene()[40, 60])
    assert tuple(tile[20, 60]) == PALETTE[0]
    assert not np.array_equal(np.asarray(masks)[gap + 40, gap + 60], scene()[40, 60])


def test_objects_keep_their_colour_through_the_film() -> None:
    # In the first frame alone the right-hand object would take the first colour.
    last = rectangles((10, 20, 50, 60), (70, 20, 110, 60))
    strip = film_strip(scene(), [Frame("a", last[1]), Frame("b", last)], tile_width=120)
    gap = (strip.width - 240) // 3
    tiles = np.asarray(strip)[gap : gap + 80]
    first, second = tiles[:, gap : gap + 120], tiles[:, 2 * gap + 120 : 2 * gap + 240]
    assert np.array_equal(first[20:60, 70:110], second[20:60, 70:110])
    assert tuple(first[20, 90]) == PALETTE[1]


def test_frames_without_instances_show_the_image() -> None:
    strip = film_strip(scene(), [Frame("nothing yet", rectangles())] * 2, tile_width=120)
    gap = (strip.width - 240) // 3
    assert np.array_equal(np.asarray(strip)[gap : gap + 80, gap : gap + 120], scene())


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


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((80, 121, 3), dtype=np.uint8), r"\(80, 120\)"),
        (np.zeros((80, 120), dtype=np.uint8), "RGB"),
        (np.zeros((80, 120, 3)), "float64"),
    ],
)
def test_another_image_is_refused(image: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        overlay(image, rectangles())
    with pytest.raises(ValueError, match=message):
        film_strip(image, [Frame("a", rectangles())])


def test_impossible_options_are_refused() -> None:
    with pytest.raises(ValueError, match="alpha is 2"):
        overlay(scene(), rectangles(), alpha=2)
    with pytest.raises(ValueError, match="0 images"):
        film_strip(scene(), [])
    with pytest.raises(ValueError, match="columns=0"):
        film_strip(scene(), [Frame("a", rectangles())], columns=0)
    with pytest.raises(ValueError, match="tile_width=0"):
        film_strip(scene(), [Frame("a", rectangles())], tile_width=0)
