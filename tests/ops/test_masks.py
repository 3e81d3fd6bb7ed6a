"""Is mask geometry right by hand, and are the separable operators the chains they stand for?"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from diffinst.ops.masks import (
    aligned_bilinear,
    enlarge,
    grid_points,
    grid_to_output,
    map_points,
    map_to_output,
    sample_at,
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


def test_sample_at_by_hand() -> None:
    maps = torch.tensor([[0.0, 4.0], [8.0, 12.0]]).view(1, 1, 2, 2).repeat(2, 1, 1, 1)
    maps[1] += 100
    points = torch.tensor([[[2.0, 2.0], [4.0, 2.0], [4.0, 4.0], [-50.0, 500.0]]]).repeat(2, 1, 1)
    sampled = sample_at(maps, points, torch.tensor([0, 1]))
    assert sampled[:, 0].tolist() == [[0, 2, 6, 8], [100, 102, 106, 108]]


def test_sample_at_cells_is_the_map() -> None:
    maps = torch.randn(2, 3, 4, 5)
    points = map_points((4, 5), maps.device)[None]
    sampled = sample_at(maps, points, torch.tensor([1]))
    torch.testing.assert_close(sampled[0], maps[1].flatten(1))
    nothing = sample_at(maps, points[:0], torch.zeros(0, dtype=torch.int64))
    assert nothing.shape == (0, 3, 20)


@settings(max_examples=30)
@given(st.integers(0, 2**31))
def test_sample_at_equals_grid_sample(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(1, 2, 4, 6, generator=generator, dtype=torch.float64)
    points = torch.rand(1, 9, 2, generator=generator) * 40 - 8
    cells = (points.double() - 2) / 4
    unit = (cells + 0.5) / torch.tensor([6.0, 4.0]) * 2 - 1
    wanted = F.grid_sample(maps, unit[:, None], padding_mode="border", align_corners=False)[:, :, 0]
    sampled = sample_at(maps, points, torch.tensor([0]))
    torch.testing.assert_close(sampled, wanted, rtol=0, atol=1e-5)


def test_sample_at_has_an_exact_gradient() -> None:
    maps = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    points = torch.tensor([[[3.0, 5.0], [9.5, 1.0]]])
    assert torch.autograd.gradcheck(lambda m: sample_at(m, points, torch.tensor([1])), maps)


def test_sample_at_keeps_bf16() -> None:
    sampled = sample_at(torch.ones(1, 2, 3, 3).bfloat16(), torch.rand(1, 4, 2), torch.tensor([0]))
    assert sampled.dtype == torch.bfloat16
    assert sampled.float().tolist() == [[[1.0] * 4] * 2]


def test_sample_binary_by_hand() -> None:
    masks = torch.tensor([[[True, False], [False, True]]])
    points = torch.tensor([[[0.9, 0.1], [1.0, 0.5], [1.5, 1.5], [-0.1, 0.5], [2.0, 1.5]]])
    assert sample_binary(masks, points).tolist() == [[1, 0, 1, 0, 0]]
    assert sample_binary(masks[:0], points[:0]).shape == (0, 5)


def test_a_grid_reaches_the_output_by_hand() -> None:
    """Three cells over pixels 1 to 7, two pixels a cell: their centres lie at 2, 4 and 6."""
    low, high = torch.tensor([1.0]), torch.tensor([7.0])
    weights = grid_to_output(torch.arange(9), low, high, 3).matrix(0, 9, (0, 3))
    inside = [[1, 0, 0], [0.75, 0.25, 0], [0.25, 0.75, 0], [0, 0.75, 0.25], [0, 0.25, 0.75]]
    expected = [[0, 0, 0], *inside, [0, 0, 1], [0, 0, 0], [0, 0, 0]]
    torch.testing.assert_close(weights, torch.tensor(expected))
    each = grid_to_output(
        torch.tensor([1, 1]), torch.tensor([1.0, 5.0]), torch.tensor([7.0, 9.0]), 3
    )
    assert each.weight.sum(1).tolist() == [1, 0]  # the second grid begins further right
    assert grid_to_output(torch.arange(0), low, high, 3).index.shape == (0, 2)


@given(st.floats(-50, 50, width=32), st.floats(0, 50, width=32), st.integers(1, 30))
def test_a_grid_gives_shares_of_one_inside_and_none_outside(
    low: float, length: float, size: int
) -> None:
    pixel = torch.arange(-60, 110)
    ends = torch.tensor([low]), torch.tensor([low]) + length
    taps = grid_to_output(pixel, *ends, size)
    assert (taps.weight >= 0).all()
    inside = (pixel + 0.5 > ends[0]) & (pixel + 0.5 < ends[1])
    torch.testing.assert_close(taps.weight.sum(1), inside.float())
    assert ((taps.index >= 0) & (taps.index < size)).all()


@settings(max_examples=60)
@given(
    st.tuples(st.integers(1, 8), st.integers(1, 8)),
    st.floats(0.1, 1),
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
)
def test_map_to_output_equals_upsampling_cut_and_resizing(
    cells: tuple[int, int], share: float, output: tuple[int, int]
) -> None:
    inside = [max(1, round(4 * n * share)) for n in cells]
    maps = torch.rand(1, 1, *cells)
    cut = aligned_bilinear(maps, 4)[..., : inside[0], : inside[1]]
    wanted = F.interpolate(cut, size=output, mode="bilinear", align_corners=False)
    rows, columns = (
        map_to_output(cells[i], inside[i], output[i]).matrix(0, output[i], (0, cells[i]))
        for i in (0, 1)
    )
    assert rows.shape == (output[0], cells[0])
    torch.testing.assert_close(rows @ maps[0, 0] @ columns.T, wanted[0, 0], rtol=0, atol=1e-5)
    torch.testing.assert_close(rows.sum(1), torch.ones(output[0]))


@pytest.mark.parametrize("size", [1, 7])
def test_one_cell_covers_everything(size: int) -> None:
    assert map_to_output(1, 3, size).matrix(0, size, (0, 1)).tolist() == [[1]] * size


@given(st.integers(1, 12), st.floats(0.1, 1), st.integers(1, 90), st.data())
def test_a_part_of_an_axis_reads_only_its_support(
    cells: int, share: float, output: int, data: st.DataObject
) -> None:
    taps = map_to_output(cells, max(1, round(4 * cells * share)), output)
    start = data.draw(st.integers(0, output - 1))
    stop = data.draw(st.integers(start + 1, output))
    first, last = taps.support(start, stop)
    whole = taps.matrix(0, output, (0, cells))[start:stop]
    assert torch.equal(taps.matrix(start, stop, (first, last)), whole[:, first:last])
    assert whole[:, :first].sum() == whole[:, last:].sum() == 0
