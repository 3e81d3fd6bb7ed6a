"""Boxes against boxes and images, counted by hand."""

import numpy as np
import pytest
from pycocotools import mask as mask_utils

from diffinst.datasets.doctor.geometry import Box, beyond, extent, has_area_inside, iou, mask_box


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        pytest.param((0, 0, 4, 2), (0, 0, 4, 2), 1, id="equal"),
        pytest.param((0, 0, 4, 2), (2, 0, 6, 2), 1 / 3, id="half: 4 of 8 + 8 - 4"),
        pytest.param((0, 0, 4, 2), (4, 0, 6, 2), 0, id="side by side"),
        pytest.param((0, 0, 0, 2), (0, 0, 0, 2), 0, id="no area"),
        pytest.param((5, 5, 1, 1), (0, 0, 6, 6), 0, id="turned inside out"),
    ],
)
def test_iou(a: Box, b: Box, expected: float) -> None:
    assert iou(a, b) == iou(b, a) == pytest.approx(expected)


def test_extent_is_around_all_points() -> None:
    assert extent([[1, 5, 3, 4], [2, 9, 0, 6]]) == (0, 4, 3, 9)
    assert extent([]) is None
    assert extent({"size": [2, 2], "counts": [4]}) is None


def test_box_of_a_mask_ends_behind_its_last_pixel() -> None:
    mask = np.zeros((4, 6), dtype=np.uint8, order="F")
    mask[1:3, 2:4] = 1
    assert mask_box(mask_utils.encode(mask)) == (2, 1, 4, 3)


@pytest.mark.parametrize(
    ("box", "inside", "words"),
    [
        pytest.param((0, 0, 20, 10), True, "", id="all of it"),
        pytest.param((-2, -2, 22, 12), True, "", id="rounded"),
        pytest.param((-3, 0, 5, 5), True, "left by 3 pixels", id="left"),
        pytest.param((15, 8, 25, 14.5), True, "right by 5 pixels, bottom by 4.5 pixels", id="two"),
        pytest.param((25, 0, 30, 5), False, "right by 10 pixels", id="beside it"),
        pytest.param((5, 5, 5, 9), False, "", id="no width"),
    ],
)
def test_box_on_an_image_of_height_10_and_width_20(box: Box, inside: bool, words: str) -> None:
    assert has_area_inside(box, (10, 20)) is inside
    assert beyond(box, (10, 20)) == words
