"""Are the separable operators the chains they stand for, and windows cut from their own maps?"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from diffinst.ops import resample
from diffinst.ops.masks import aligned_bilinear
from diffinst.ops.resample import AxisTaps, grid_to_output, map_to_output, threshold_together


def nearest(_: Tensor, pixel: Tensor) -> AxisTaps:
    """Two pixels a cell."""
    return AxisTaps((pixel // 2)[:, None], torch.ones(len(pixel), 1))


def between(_: Tensor, pixel: Tensor) -> AxisTaps:
    """Halfway from a cell to the next."""
    return AxisTaps(torch.stack([pixel, pixel + 1], 1), torch.full((len(pixel), 2), 0.5))


def test_two_windows_by_hand() -> None:
    probs = torch.tensor([[[0.9, 0.1], [0.1, 0.9]], [[0.1, 0.1], [0.9, 0.9]]])
    windows = [(1, 1, 2, 3), (0, 2, 4, 1)]
    first, second = threshold_together(probs, windows, nearest, nearest, 0.5)
    assert first.tolist() == [[True, False, False], [False, True, True]]  # row 1, then row 2
    assert second.tolist() == [[False], [False], [True], [True]]


def test_cells_are_blended() -> None:
    probs = torch.tensor([[[0.0, 1.0], [1.0, 1.0]]])  # the mean is 0.75
    for threshold, inside in ((0.7, True), (0.8, False)):
        (patch,) = threshold_together(probs, [(0, 0, 1, 1)], between, between, threshold)
        assert patch.tolist() == [[inside]]


@settings(max_examples=40)
@given(
    st.integers(1, 40),
    st.lists(st.tuples(*[st.integers(0, 4)] * 2, *[st.integers(0, 4)] * 2), max_size=6),
    st.integers(0, 2**31),
)
def test_blocks_and_strips_do_not_show(
    pixels: int, windows: list[tuple[int, int, int, int]], seed: int
) -> None:
    probs = torch.rand(len(windows), 4, 4, generator=torch.Generator().manual_seed(seed))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(resample, "PIXELS", pixels)
        found = threshold_together(probs, windows, nearest, nearest, 0.5)
    assert len(found) == len(windows)
    for i, (y, x, h, w) in enumerate(windows):
        full = probs[i].repeat_interleave(2, 0).repeat_interleave(2, 1) > 0.5
        assert torch.equal(found[i], full[y : y + h, x : x + w])


def test_no_windows() -> None:
    assert threshold_together(torch.zeros(0, 4, 4), [], nearest, nearest, 0.5) == []


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
def test_a_grid_gives_parts_of_one_inside_and_none_outside(
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
    first, last = taps[torch.arange(start, stop)].support()
    whole = taps.matrix(0, output, (0, cells))[start:stop]
    assert torch.equal(taps.matrix(start, stop, (first, last)), whole[:, first:last])
    assert whole[:, :first].sum() == whole[:, last:].sum() == 0
