"""Marks: contours lie on the edges, neighbours differ in colour."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from diffinst.results.crops import CroppedMasks
from diffinst.results.render import marks
from diffinst.results.render.marks import (
    PALETTE,
    Color,
    check_image,
    contour,
    draw_masks,
    instance_colors,
)


def colors_of(corners: list[tuple[int, int, int, int]]) -> list[Color]:
    """The colours of boxes (x0, y0, x1, y1) whose scores rise."""
    boxes = torch.tensor(corners, dtype=torch.float32).reshape(-1, 4)
    return instance_colors(boxes, torch.arange(len(corners), dtype=torch.float32) / 100)


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


def test_an_outline_as_wide_as_it_may_be_reaches_over_the_border() -> None:
    """8 / 3, of images of 800 x 800 pixels, is larger in float32, and so was the blur's reach."""
    square = CroppedMasks(
        torch.tensor([[0, 0, 24, 24]]), (torch.ones(24, 24, dtype=torch.bool),), (40, 40)
    )
    blank = np.zeros((40, 40, 3), dtype=np.uint8)
    drawn = np.asarray(draw_masks(blank, square, [(255, 255, 255)], alpha=0.0, line=8 / 3))
    assert drawn[5:20, 0].all() and drawn[0, 5:20].all()  # the outline
    assert not drawn[30:].any()


def test_neighbours_have_different_colours() -> None:
    corners = [(10 * i, 10 * j, 10 * i + 9, 10 * j + 9) for i in range(12) for j in range(8)]
    colors = colors_of(corners)
    assert set(colors) == set(PALETTE)
    for (a, first), (b, second) in itertools.combinations(zip(corners, colors, strict=True), 2):
        if max(abs(a[0] - b[0]), abs(a[1] - b[1])) <= 10:
            assert first != second


def test_the_highest_score_takes_the_first_colour() -> None:
    corners = [(0, 0, 9, 9), (50, 0, 59, 9), (90, 0, 99, 9)]
    assert colors_of(corners) == [PALETTE[2], PALETTE[1], PALETTE[0]]
    assert colors_of([]) == []


def test_only_the_image_of_the_result_is_taken() -> None:
    check_image(np.zeros((4, 6, 3), dtype=np.uint8), (4, 6))
    for other in (np.zeros((6, 4, 3), dtype=np.uint8), np.zeros((4, 6, 3))):
        with pytest.raises(ValueError, match=r"uint8 \(4, 6, 3\)"):
            check_image(other, (4, 6))  # type: ignore[arg-type]  # one is no uint8


def test_drawing_knows_nothing_of_results() -> None:
    folder = Path(marks.__file__).parent
    below = [*folder.glob("*.py"), folder.parent / "crops.py"]
    assert len(below) >= 5
    for file in below:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.module != "diffinst.results.instances", file.name
