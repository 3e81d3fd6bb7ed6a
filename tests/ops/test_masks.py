"""Is mask geometry right by hand?"""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from diffinst.ops.masks import (
    aligned_bilinear,
    enlarge,
    expected_iou,
    grid_points,
    map_points,
    sample_binary,
    sample_targets,
)


def test_aligned_bilinear_on_a_ramp() -> None:
    ramp = torch.tensor([0.0, 4.0]).view(1, 1, 1, 2)
    # cell i lies at pixel 4 i + 2: 0 at pixel 2, 4 at pixel 6; borders replicated
    row = [0.0, 0, 0, 1, 2, 3, 4, 4]
    assert aligned_bilinear(ramp, 4)[0, 0].tolist() == [row] * 4
    assert aligned_bilinear(ramp, 2)[0, 0].tolist() == [[0.0, 0, 2, 4]] * 2


def test_aligned_bilinear_by_one_is_the_identity() -> None:
    maps = torch.rand(2, 3, 4, 5)
    assert torch.equal(aligned_bilinear(maps, 1), maps)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5))
def test_aligned_bilinear_keeps_cells_where_they_lie(height: int, width: int, factor: int) -> None:
    maps = torch.rand(1, 2, height, width)
    larger = aligned_bilinear(maps, factor)
    assert larger.shape == (1, 2, factor * height, factor * width)
    half = factor // 2
    torch.testing.assert_close(larger[..., half::factor, half::factor], maps)


def test_targets_are_every_fourth_pixel_from_the_third() -> None:
    masks = torch.zeros(1, 5, 7, dtype=torch.bool)
    masks[0, 2, 6] = True
    sampled = sample_targets(masks, (8, 8))
    assert sampled.tolist() == [[[0, 1], [0, 0]]]
    assert sample_targets(masks[:0], (8, 8)).shape == (0, 2, 2)


def test_map_points_are_where_targets_are_sampled() -> None:
    assert map_points((1, 3), torch.device("cpu")).tolist() == [[2, 2], [6, 2], [10, 2]]
    masks = torch.rand(2, 12, 8) > 0.5
    points = map_points((3, 2), masks.device).expand(2, -1, -1)
    assert torch.equal(sample_binary(masks, points), sample_targets(masks, (12, 8)).flatten(1))


def test_grid_by_hand() -> None:
    points = grid_points(torch.tensor([[0.0, 10.0, 4.0, 18.0]]), 2)
    assert points.tolist() == [[[1, 12], [3, 12], [1, 16], [3, 16]]]
    assert enlarge(torch.tensor([[0.0, 10.0, 4.0, 18.0]]), 0.5).tolist() == [[-1, 8, 5, 20]]
    assert grid_points(enlarge(torch.zeros(0, 4), 0.2), 3).shape == (0, 9, 2)


def test_sample_binary_by_hand() -> None:
    masks = torch.tensor([[[True, False], [False, True]]])
    points = torch.tensor([[[0.9, 0.1], [1.0, 0.5], [1.5, 1.5], [-0.1, 0.5], [2.0, 1.5]]])
    assert sample_binary(masks, points).tolist() == [[1, 0, 1, 0, 0]]
    assert sample_binary(masks[:0], points[:0]).shape == (0, 5)


def test_expected_iou_by_hand() -> None:
    probs = torch.tensor([[1.0, 1, 0, 0], [0.75, 0.25, 0, 0], [0.5, 0.4, 0.3, 0], [1, 0.5, 0.5, 0]])
    # sure: 1; 0.75 of 1 + 0.25; nothing above one half; 1 of 1 + 0.5 + 0.5
    torch.testing.assert_close(expected_iou(probs), torch.tensor([1, 0.6, 0, 0.5]))
    # with the threshold at 0.2 the second mask has two points: 1 of 2
    torch.testing.assert_close(expected_iou(probs, 0.2)[1], torch.tensor(0.5))
    assert expected_iou(torch.zeros(0, 4)).shape == (0,)
