"""Overlays: every instance shows, the rest stays as it is, and the same result looks the same."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from diffinst.results.crops import CroppedMasks
from diffinst.results.instances import Instances
from diffinst.results.render.marks import PALETTE
from diffinst.results.render.overlay import overlay

SIZE = (80, 120)  # of `scene`
REACH = 2  # at this size lines are 1 pixel wide: half of it plus a pixel of smoothing


def drawn(scene: np.ndarray, instances: Instances, alpha: float = 0.5) -> np.ndarray:
    return np.asarray(overlay(scene, instances, labels=False, scores=False, alpha=alpha))


def test_pixels_change_inside_masks_and_nowhere_beyond_the_contour(
    scene: np.ndarray, rectangles: Callable[..., Instances]
) -> None:
    found = rectangles((10, 10, 40, 30), (70, 40, 71, 41), (100, 60, 120, 80))
    changed = (drawn(scene, found) != scene).any(axis=2)
    assert changed[found.masks.any(dim=0).numpy()].all()
    near = np.zeros(SIZE, dtype=bool)
    for x0, y0, x1, y1 in found.boxes.int().tolist():
        near[max(0, y0 - REACH) : y1 + REACH, max(0, x0 - REACH) : x1 + REACH] = True
    assert not changed[~near].any()


@pytest.mark.parametrize(("side", "line"), [(320, 1.25), (500, 1.7), (2000, 6.7), (4000, 13.3)])
def test_contours_grow_with_the_image_and_stay_thin_on_small_objects(
    side: int, line: float
) -> None:
    # Opacities summed across an edge are the width of the line there.
    masks = CroppedMasks(
        torch.tensor([[100, 100, 200, 200], [20, 20, 16, 16]]),
        (torch.ones(200, 200, dtype=torch.bool), torch.ones(16, 16, dtype=torch.bool)),
        (side, side),
    )
    found = Instances(
        masks.tight_boxes(), torch.ones(2), torch.zeros(2).long(), masks, (side, side), ("cat",)
    )
    black = np.zeros((side, side, 3), dtype=np.uint8)
    image = np.asarray(overlay(black, found, labels=False, scores=False, alpha=0)) / 255.0
    large, small = (image[row].max(axis=1) for row in (200, 28))
    color = np.array(PALETTE[0]).max() / 255
    assert abs(large[:200].sum() / color - line) < 0.7
    assert abs(small[:28].sum() / color - min(line, 2.7)) < 0.7  # a sixth of 16 pixels


def test_a_fill_is_the_mean_of_image_and_colour_at_half_opacity(
    scene: np.ndarray, rectangles: Callable[..., Instances]
) -> None:
    found = rectangles((10, 10, 40, 30))
    inside = drawn(scene, found)[20, 25].astype(float)
    assert np.abs(inside - (scene[20, 25] + np.array(PALETTE[0])) / 2).max() <= 0.5
    assert np.array_equal(drawn(scene, found, alpha=0)[20, 25], scene[20, 25])
    assert tuple(drawn(scene, found, alpha=1)[20, 25]) == PALETTE[0]


def test_smaller_instances_lie_on_top_whatever_their_order(
    scene: np.ndarray, rectangles: Callable[..., Instances]
) -> None:
    large, small = (10, 10, 60, 60), (30, 30, 40, 40)
    for corners in ((large, small), (small, large)):
        color = np.array(PALETTE[corners.index(small)])
        assert tuple(drawn(scene, rectangles(*corners), alpha=1)[35, 35]) == tuple(color)


def test_without_instances_the_image_comes_back(
    scene: np.ndarray, rectangles: Callable[..., Instances]
) -> None:
    same = overlay(scene, rectangles(), boxes=True)
    assert np.array_equal(np.asarray(same), scene)


def test_an_empty_mask_draws_nothing_but_its_box(
    scene: np.ndarray, rectangles: Callable[..., Instances]
) -> None:
    found = replace(
        rectangles((10, 10, 40, 30)),
        mask_crops=CroppedMasks(
            torch.tensor([[10, 10, 0, 0]]), (torch.zeros(0, 0, dtype=torch.bool),), SIZE
        ),
    )
    assert np.array_equal(drawn(scene, found), scene)
    boxed = np.asarray(overlay(scene, found, boxes=True, labels=False, scores=False))
    # Corners at (10, 10) and (39, 29): the far edges lie outside the last pixel.
    edge = np.zeros(SIZE, dtype=bool)
    edge[10:30, 10:40] = True
    edge[11:29, 11:39] = False
    assert np.array_equal((boxed != scene).any(axis=2), edge)
    assert tuple(boxed[29, 39]) == PALETTE[0]


def test_drawing_does_not_change_its_input_and_repeats_itself(
    scene: np.ndarray, rectangles: Callable[..., Instances]
) -> None:
    image, found = scene, rectangles((10, 10, 40, 30), (30, 20, 60, 50))
    first = overlay(image, found, boxes=True)
    assert np.array_equal(image, scene)
    assert first == overlay(image, found, boxes=True)
    assert first.size == (SIZE[1], SIZE[0])


def test_labels_are_written_on_large_instances_and_omitted_in_crowds(
    scene: np.ndarray, rectangles: Callable[..., Instances]
) -> None:
    large = rectangles((10, 10, 110, 70))
    assert not np.array_equal(np.asarray(overlay(scene, large)), drawn(scene, large))
    crowd = rectangles(*((x, y, x + 8, y + 8) for x in range(5, 105, 12) for y in (5, 25, 45)))
    assert np.array_equal(np.asarray(overlay(scene, crowd)), drawn(scene, crowd))


def test_labels_say_the_class_the_score_or_both(
    scene: np.ndarray, rectangles: Callable[..., Instances]
) -> None:
    found = rectangles((10, 10, 110, 70))  # "cat 0.90"
    plain = drawn(scene, found)
    widths = {}
    for labels, scores in itertools.product((True, False), repeat=2):
        changed = np.asarray(overlay(scene, found, labels=labels, scores=scores)) != plain
        widths[labels, scores] = int(changed.any(axis=(0, 2)).sum())
    assert widths[False, False] == 0 < widths[True, False] < widths[True, True]
    assert 0 < widths[False, True] < widths[True, True]


def test_one_labelled_object_among_many_small_ones_stays_without(
    scene: np.ndarray, rectangles: Callable[..., Instances]
) -> None:
    # The first could carry a label: 80 x 40 pixels. The others together have a larger area.
    crowd = [(x, y, x + 10, y + 20) for x in range(0, 120, 10) for y in (40, 60)]
    found = rectangles((20, 0, 100, 40), *crowd)
    assert np.array_equal(np.asarray(overlay(scene, found)), drawn(scene, found))


def test_of_two_touching_labels_the_higher_score_is_written(
    scene: np.ndarray, rectangles: Callable[..., Instances]
) -> None:
    twins = rectangles((10, 10, 110, 70), (12, 12, 112, 72))
    labelled = np.asarray(overlay(scene, twins))
    alone = np.asarray(overlay(scene, twins[0]))
    assert np.array_equal(labelled[10:24, 40:80], alone[10:24, 40:80])


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
        overlay(image, rectangles())


def test_impossible_options_are_refused(
    scene: np.ndarray, rectangles: Callable[..., Instances]
) -> None:
    with pytest.raises(ValueError, match="alpha is 2"):
        overlay(scene, rectangles(), alpha=2)


def test_an_id_has_its_colour_and_number_in_every_frame(
    scene: np.ndarray, rectangles: Callable[..., Instances]
) -> None:
    """Objects 5 and 6, then with places changed, then 17, which is twelve colours after 5."""
    left, right = (5, 20, 45, 60), (60, 20, 110, 60)
    fill = {}
    for frame, (corners, numbers) in enumerate(
        [((left, right), (5, 6)), ((left, right), (6, 5)), ((left,), (17,))]
    ):
        found = replace(rectangles(*corners), ids=torch.tensor(numbers))
        image = np.asarray(overlay(np.zeros_like(scene), found, labels=False, scores=False))
        for (x0, y0, _, _), number in zip(corners, numbers, strict=True):
            fill[frame, number] = tuple(image[y0 + 5, x0 + 5].tolist())
    assert fill[0, 5] == fill[1, 5] == fill[2, 17] != fill[0, 6] == fill[1, 6]
    numbered = np.asarray(overlay(scene, replace(rectangles(left), ids=torch.tensor([5]))))
    plain = np.asarray(overlay(scene, replace(rectangles(left), ids=torch.tensor([6]))))
    assert (numbered > 200).all(2).any()  # white ink
    assert not np.array_equal(numbered, plain)
