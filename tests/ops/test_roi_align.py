"""Does the weighted gather give aligned RoIAlign's numbers and gradients, level by level?"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import roi_align

from diffinst import kernels
from diffinst.kernels.roi import pool
from diffinst.ops import roi_align as plain_roi_align
from diffinst.ops.roi_align import assign_levels
from diffinst.structures import Pyramid


def pyramid_of(
    batch: int, channels: int, sizes: list[tuple[int, int]], seed: int = 0
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, channels, h, w, generator=generator) for h, w in sizes]


def torchvision_pool(pyramid: list[Tensor], boxes: Tensor, size: int, sampling: int) -> Tensor:
    """Each box from its level with torchvision's operator; (B, N, size * size, C)."""
    levels = assign_levels(boxes, len(pyramid))
    rows = []
    for i, own in enumerate(boxes):
        for box, level in zip(own, levels[i].tolist(), strict=True):
            maps, scale = pyramid[level - 2][i : i + 1], 0.5**level
            rows.append(roi_align(maps, [box[None]], size, scale, sampling, aligned=True))
    if not rows:
        return boxes.new_zeros(*boxes.shape[:2], size * size, pyramid[0].shape[1])
    pooled = torch.cat(rows).flatten(2).transpose(1, 2)
    return pooled.view(*boxes.shape[:2], *pooled.shape[1:])


def test_levels_by_hand() -> None:
    sides = [0.0, 1.0, 111.0, 113.0, 223.0, 225.0, 447.0, 449.0, 5000.0]
    boxes = torch.tensor([[0.0, 0.0, side, side] for side in sides])
    assert assign_levels(boxes).tolist() == [2, 2, 2, 3, 3, 4, 4, 5, 5]
    assert assign_levels(boxes, levels=2).tolist() == [2, 2, 2, 3, 3, 3, 3, 3, 3]


def test_levels_of_strange_boxes() -> None:
    nan, inf = float("nan"), float("inf")
    boxes = torch.tensor([[5.0, 5.0, 1.0, 1.0], [nan, 0.0, 1.0, 1.0], [0.0, 0.0, inf, inf]])
    assert assign_levels(boxes).tolist() == [2, 2, 5]


def test_a_ramp_by_hand() -> None:
    """f(x) = x in cells: a bin's mean is the x of its centre, half a cell to the left."""
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    boxes = torch.tensor([[[4.0, 4.0, 20.0, 20.0]]])  # cells 1 to 5 at stride 4: bins of 2 cells
    pooled = pool(Pyramid.of([ramp]), boxes, size=2, sampling=2)
    assert pooled[0, 0, :, 0].tolist() == [1.5, 3.5, 1.5, 3.5]


def test_samples_beyond_the_border_count_zero() -> None:
    ones = torch.ones(1, 1, 4, 4)
    boxes = torch.tensor([[[-16.0, 0.0, 16.0, 16.0], [100.0, 0.0, 116.0, 16.0]]])
    pooled = pool(Pyramid.of([ones]), boxes, size=2, sampling=2)
    # left bin of box 0: samples at -3.5 and -1.5 cells; right bin: at 0.5 and 2.5
    assert pooled[0, 0, :, 0].tolist() == [0, 1, 0, 1]
    assert pooled[0, 1].abs().max() == 0


SIZES = [(16, 24), (8, 12), (4, 6), (2, 3)]


@settings(max_examples=25)
@given(
    st.integers(0, 2**31),
    st.integers(0, 5),
    st.sampled_from([(7, 2), (3, 1), (1, 3)]),
    st.booleans(),
)
def test_equals_torchvision_forward_and_backward(
    seed: int, count: int, grid: tuple[int, int], one_level: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    pyramid = pyramid_of(2, 3, SIZES[:1] if one_level else SIZES, seed)
    pyramid = [level.requires_grad_() for level in pyramid]
    low = torch.rand(2, count, 2, generator=generator) * 140 - 30
    side = 2 ** (torch.rand(2, count, 2, generator=generator) * 12 - 2)  # a quarter to 1024 pixels
    boxes = torch.cat([low, low + side], dim=-1)
    ours = pool(Pyramid.of(pyramid), boxes, *grid)
    theirs = torchvision_pool(pyramid, boxes, *grid)
    with kernels.plain():
        torch.testing.assert_close(pool(Pyramid.of(pyramid), boxes, *grid), ours)
    torch.testing.assert_close(plain_roi_align.pool(Pyramid.of(pyramid), boxes, *grid), ours)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    if not count:
        return
    gradient = torch.randn(ours.shape, generator=generator)
    for mine, wanted in zip(
        torch.autograd.grad(ours, pyramid, gradient),
        torch.autograd.grad(theirs, pyramid, gradient, allow_unused=True, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-4)


def test_no_boxes_still_have_a_gradient() -> None:
    level = torch.ones(1, 2, 4, 4, requires_grad=True)
    pooled = pool(Pyramid.of([level]), torch.zeros(1, 0, 4), 7, 2)
    assert pooled.shape == (1, 0, 49, 2)
    pooled.sum().backward()
    assert level.grad is not None and level.grad.abs().max() == 0


@pytest.mark.parametrize("box", [[0.0] * 4, [9.0, 9.0, 3.0, 3.0], [float("nan")] * 4, [1e30] * 4])
def test_degenerate_boxes_give_finite_features(box: list[float]) -> None:
    pooled = pool(Pyramid.of(pyramid_of(1, 2, SIZES)), torch.tensor([[box]]), 7, 2)
    assert torch.isfinite(pooled).all()


def test_bf16_features_stay_bf16() -> None:
    pyramid = pyramid_of(1, 4, SIZES)
    boxes = torch.tensor([[[3.0, 5.0, 50.0, 40.0]]])
    exact = pool(Pyramid.of(pyramid), boxes, 7, 2)
    rounded = pool(Pyramid.of([level.bfloat16() for level in pyramid]), boxes, 7, 2)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, rtol=0, atol=0.05)


@pytest.mark.parametrize("images", [1, 3])
def test_boxes_of_another_batch_are_refused(images: int) -> None:
    pyramid = Pyramid.of([torch.zeros(2, 4, 8, 8)])
    with pytest.raises(ValueError, match=rf"boxes of {images} images for features of 2"):
        pool(pyramid, torch.zeros(images, 5, 4), 7, 2)
