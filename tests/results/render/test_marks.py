"""Do contours lie on the edges, and do neighbours differ in colour?"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from diffinst.results.crops import CroppedMasks
from diffinst.results.instances import Instances
from diffinst.results.render.marks import PALETTE, check_image, contour, instance_colors


def boxes_only(corners: list[tuple[int, int, int, int]]) -> Instances:
    """Instances with empty masks on a 90 x 130 image; the scores rise."""
    n = len(corners)
    return Instances(
        boxes=torch.tensor(corners, dtype=torch.float32).reshape(-1, 4),
        scores=torch.arange(n, dtype=torch.float32) / 100,
        labels=torch.zeros(n, dtype=torch.int64),
        mask_crops=CroppedMasks.from_dense(torch.zeros(n, 90, 130, dtype=torch.bool)),
        image_size=(90, 130),
        class_names=("cat",),
    )


def test_contour_follows_the_edge() -> None:
    # A line of width 2 about a straight edge covers one pixel on each side of it, fully.
    opacity = contour(np.ones((40, 40), dtype=bool), line=2.0)
    margin = (opacity.shape[0] - 40) // 2
    across = opacity[margin + 20, margin - 2 : margin + 3]
    assert np.abs(across - [0, 1, 1, 0, 0]).max() < 0.05
    assert opacity[margin + 20, margin + 20] == 0


@pytest.mark.parametrize("size", [1, 2, 3])
def test_dots_thinner_than_the_blur_keep_an_outline(size: int) -> None:
    assert contour(np.ones((size, size), dtype=bool), line=1.5).max() > 0.9


def test_a_contour_is_closed_and_symmetric() -> None:
    opacity = contour(np.ones((20, 20), dtype=bool), line=1.0)
    assert np.allclose(opacity, opacity[::-1], atol=1e-4)
    assert np.allclose(opacity, opacity.T, atol=1e-4)
    middle = opacity.shape[0] // 2
    assert (opacity[:middle].max(axis=0) > 0).sum() >= 20


def test_neighbours_have_different_colours() -> None:
    corners = [(10 * i, 10 * j, 10 * i + 9, 10 * j + 9) for i in range(12) for j in range(8)]
    colors = instance_colors(boxes_only(corners))
    assert set(colors) == set(PALETTE)
    for (a, first), (b, second) in itertools.combinations(zip(corners, colors, strict=True), 2):
        if max(abs(a[0] - b[0]), abs(a[1] - b[1])) <= 10:
            assert first != second


def test_the_highest_score_takes_the_first_colour() -> None:
    corners = [(0, 0, 9, 9), (50, 0, 59, 9), (90, 0, 99, 9)]
    assert instance_colors(boxes_only(corners)) == [PALETTE[2], PALETTE[1], PALETTE[0]]
    assert instance_colors(boxes_only([])) == []


def test_only_the_image_of_the_result_is_taken() -> None:
    check_image(np.zeros((4, 6, 3), dtype=np.uint8), (4, 6))
    for other in (np.zeros((6, 4, 3), dtype=np.uint8), np.zeros((4, 6, 3))):
        with pytest.raises(ValueError, match=r"uint8 \(4, 6, 3\)"):
            check_image(other, (4, 6))
