"""Are windows of any size painted from their own map, whatever is painted at once?"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from diffinst.ops import paint
from diffinst.ops.masks import AxisTaps


def nearest(_: Tensor, pixel: Tensor) -> AxisTaps:
    """Two pixels a cell."""
    return AxisTaps((pixel // 2)[:, None], torch.ones(len(pixel), 1))


def between(_: Tensor, pixel: Tensor) -> AxisTaps:
    """Halfway from a cell to the next."""
    return AxisTaps(torch.stack([pixel, pixel + 1], 1), torch.full((len(pixel), 2), 0.5))


def test_two_windows_by_hand() -> None:
    probs = torch.tensor([[[0.9, 0.1], [0.1, 0.9]], [[0.1, 0.1], [0.9, 0.9]]])
    windows = [(1, 1, 2, 3), (0, 2, 4, 1)]
    first, second = paint.paint(probs, windows, nearest, nearest, 0.5)
    assert first.tolist() == [[True, False, False], [False, True, True]]  # row 1, then row 2
    assert second.tolist() == [[False], [False], [True], [True]]


def test_cells_are_blended() -> None:
    probs = torch.tensor([[[0.0, 1.0], [1.0, 1.0]]])  # the mean is 0.75
    for threshold, inside in ((0.7, True), (0.8, False)):
        (patch,) = paint.paint(probs, [(0, 0, 1, 1)], between, between, threshold)
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
        patched.setattr(paint, "PIXELS", pixels)
        found = paint.paint(probs, windows, nearest, nearest, 0.5)
    assert len(found) == len(windows)
    for i, (y, x, h, w) in enumerate(windows):
        full = probs[i].repeat_interleave(2, 0).repeat_interleave(2, 1) > 0.5
        assert torch.equal(found[i], full[y : y + h, x : x + w])


def test_nothing_to_paint() -> None:
    assert paint.paint(torch.zeros(0, 4, 4), [], nearest, nearest, 0.5) == []
