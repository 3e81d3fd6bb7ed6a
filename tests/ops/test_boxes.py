"""Is box arithmetic right by hand, and finite wherever boxes degenerate?"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import box_iou, nms

from diffinst.ops.boxes import (
    apply_deltas,
    area,
    class_nms,
    clip,
    cxcywh_to_xyxy,
    giou,
    iou,
    xyxy_to_cxcywh,
)

EMPTY = torch.zeros(0, 4)
numbers = st.floats(-1000, 1000, width=32)
sizes = st.floats(0.125, 500, width=32)


@st.composite
def boxes(draw: st.DrawFn, count: int | None = None) -> Tensor:
    """(n, 4) float64 xyxy with sides of at least 1/8."""
    n = draw(st.integers(0, 6)) if count is None else count
    rows = [[draw(numbers), draw(numbers), draw(sizes), draw(sizes)] for _ in range(n)]
    low, size = torch.tensor(rows, dtype=torch.float64).reshape(-1, 4).split(2, dim=1)
    return torch.cat([low, low + size], dim=1)


def test_formats_by_hand() -> None:
    assert xyxy_to_cxcywh(torch.tensor([2.0, 4.0, 6.0, 14.0])).tolist() == [4, 9, 4, 10]
    assert cxcywh_to_xyxy(torch.tensor([4.0, 9.0, 4.0, 10.0])).tolist() == [2, 4, 6, 14]


@given(boxes())
def test_formats_round_trip(given_boxes: Tensor) -> None:
    there_and_back = cxcywh_to_xyxy(xyxy_to_cxcywh(given_boxes))
    torch.testing.assert_close(there_and_back, given_boxes, rtol=0, atol=1e-9)


def test_area_of_boxes_turned_inside_out_is_zero() -> None:
    both_turned, one_turned = [3.0, 3.0, 1.0, 1.0], [0.0, 3.0, 5.0, 1.0]
    given_boxes = torch.tensor([[1.0, 1.0, 3.0, 4.0], both_turned, one_turned])
    assert area(given_boxes).tolist() == [6, 0, 0]


def test_clip_uses_height_and_width_the_right_way_round() -> None:
    given_boxes = torch.tensor([[-5.0, -5.0, 50.0, 50.0], [1.0, 2.0, 3.0, 4.0]])
    assert clip(given_boxes, (10, 20)).tolist() == [[0, 0, 20, 10], [1, 2, 3, 4]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    # 512 x 512 and its right half: areas beyond what float16 holds
    a = torch.tensor([0.0, 0.0, 512.0, 512.0], dtype=dtype)
    b = torch.tensor([256.0, 0.0, 512.0, 512.0], dtype=dtype)
    assert iou(a, b).item() == giou(a, b).item() == 0.5
    assert area(a).item() == 512 * 512
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    for value in (area(a), iou(a, b), giou(a, b), xyxy_to_cxcywh(a), cxcywh_to_xyxy(a)):
        assert value.dtype == wide
    assert clip(a, (333, 4001)).tolist() == [0, 0, 512, 333]


def test_iou_and_giou_by_hand() -> None:
    # 2x2 at (0, 0) and 2x2 at (1, 1): overlap 1, union 7, hull 3x3
    a, b = torch.tensor([0.0, 0.0, 2.0, 2.0]), torch.tensor([1.0, 1.0, 3.0, 3.0])
    assert iou(a, b).item() == pytest.approx(1 / 7)
    assert giou(a, b).item() == pytest.approx(1 / 7 - 2 / 9)
    # one pixel apart: overlap 0, union 2, hull 3x1
    a, b = torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([2.0, 0.0, 3.0, 1.0])
    assert iou(a, b).item() == 0
    assert giou(a, b).item() == pytest.approx(-1 / 3)
    assert iou(a, a).item() == 1 and giou(a, a).item() == 1


@given(boxes(), boxes())
def test_giou_lies_between_minus_one_and_iou(a: Tensor, b: Tensor) -> None:
    overlap, general = iou(a[:, None], b[None]), giou(a[:, None], b[None])
    assert overlap.shape == (len(a), len(b))
    assert (general > -1).all() and (general <= overlap + 1e-12).all()
    torch.testing.assert_close(overlap, box_iou(a, b), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(general, giou(b[:, None], a[None]).T)


@pytest.mark.parametrize(
    "other", [[1.0, 1.0, 1.0, 1.0], [3.0, 3.0, 1.0, 1.0], [0.0, 0.0, 4.0, 4.0]]
)
def test_degenerate_boxes_have_finite_values_and_gradients(other: list[float]) -> None:
    point = torch.tensor([1.0, 1.0, 1.0, 1.0], requires_grad=True)
    value = iou(point, torch.tensor(other)) + giou(point, torch.tensor(other))
    value.backward()
    assert torch.isfinite(value) and point.grad is not None
    assert torch.isfinite(point.grad).all()


def test_zero_deltas_change_nothing() -> None:
    given_boxes = torch.tensor([[10.0, 20.0, 30.0, 60.0]])
    assert apply_deltas(given_boxes, torch.zeros(1, 4)).tolist() == given_boxes.tolist()


def test_deltas_by_hand() -> None:
    # centre (20, 40), size (20, 40); dx = 1 / 2 of the width, dh = ln 2
    deltas = torch.tensor([[1.0, 0.0, 0.0, math.log(2)]])
    refined = apply_deltas(torch.tensor([[10.0, 20.0, 30.0, 60.0]]), deltas)
    torch.testing.assert_close(refined, torch.tensor([[20.0, 0.0, 40.0, 80.0]]))


def test_growth_is_limited() -> None:
    refined = apply_deltas(torch.tensor([[0.0, 0.0, 16.0, 16.0]]), torch.full((1, 4), 1000.0))
    torch.testing.assert_close(refined[:, 2:] - refined[:, :2], torch.full((1, 2), 100_000.0))


def test_deltas_in_bf16_give_float32_boxes() -> None:
    given_boxes = torch.tensor([[1000.0, 2.0, 1003.0, 5.0]])  # 1003 does not exist in bf16
    refined = apply_deltas(given_boxes, torch.zeros(1, 4, dtype=torch.bfloat16))
    assert refined.dtype == torch.float32
    assert refined.tolist() == given_boxes.tolist()


def test_nms_by_hand() -> None:
    given_boxes = torch.tensor(
        [[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 10], [20, 0, 30, 10], [0, 0, 10, 5]]
    )
    scores, labels = torch.tensor([0.8, 0.9, 0.7, 0.1, 0.5]), torch.tensor([0, 0, 1, 0, 0])
    # best of class 0 is 1, which removes 0 (IoU 0.9); 4 overlaps it by 5/9; 2 is of another class
    assert class_nms(given_boxes, scores, labels, 0.5).tolist() == [1, 2, 3]
    assert class_nms(given_boxes, scores, labels, 0.6).tolist() == [1, 2, 4, 3]


def test_nms_keeps_classes_apart_also_left_of_the_image() -> None:
    """Moved by the largest coordinate + 1 alone, the second box would lie on the first."""
    given_boxes = torch.tensor([[1.0, 1.0, 11.0, 11.0], [-11.0, -11.0, -1.0, -1.0]])
    kept = class_nms(given_boxes, torch.tensor([0.9, 0.8]), torch.tensor([0, 1]), 0.5)
    assert kept.tolist() == [0, 1]


@settings(max_examples=60)
@given(st.integers(0, 2**31), st.integers(0, 60), st.sampled_from([1, 3, 1000]))
def test_nms_is_nms_of_each_class(seed: int, count: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=generator) * 60 - 30  # also left of and above the image
    given_boxes = torch.cat([low, low + torch.rand(count, 2, generator=generator) * 40], dim=1)
    scores = torch.rand(count, generator=generator)
    labels = torch.randint(0, classes, (count,), generator=generator)
    kept = class_nms(given_boxes, scores, labels, 0.5)
    wanted = []
    for label in labels.unique():
        own = torch.nonzero(labels == label)[:, 0]
        wanted += own[nms(given_boxes[own].double(), scores[own].double(), 0.5)].tolist()
    assert sorted(kept.tolist()) == sorted(wanted)
    assert (scores[kept].diff() <= 0).all()


def test_no_boxes_at_all() -> None:
    assert cxcywh_to_xyxy(EMPTY).shape == xyxy_to_cxcywh(EMPTY).shape == (0, 4)
    assert area(EMPTY).shape == (0,) and clip(EMPTY, (5, 5)).shape == (0, 4)
    assert iou(EMPTY[:, None], torch.zeros(1, 3, 4)).shape == (0, 3)
    assert giou(EMPTY[:, None], EMPTY[None]).shape == (0, 0)
    assert apply_deltas(EMPTY, EMPTY).shape == (0, 4)
    nothing = class_nms(EMPTY, torch.zeros(0), torch.zeros(0, dtype=torch.int64), 0.5)
    assert nothing.shape == (0,) and nothing.dtype == torch.int64


def test_a_diverged_box_does_not_cost_the_others_their_nms() -> None:
    boxes = torch.tensor([[0.0, 0, 1e18, 1e18], [10, 10, 60, 60], [11, 10, 61, 60]])
    keep = class_nms(boxes, torch.tensor([0.5, 0.9, 0.8]), torch.tensor([0, 1, 1]), 0.5)
    assert keep.tolist() == [1, 0]
