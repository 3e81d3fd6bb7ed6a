"""Box arithmetic: formats, IoU and GIoU, refinement deltas, NMS.

`boxes` are xyxy pixels, `boxes_norm` cxcywh fractions of the image. All maths is float32 or better.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor
from torchvision.ops import nms

MAX_LOG_SCALE = math.log(100_000 / 16)
"""Refinement never grows a box by more than this in one stage (detectron2's clamp)."""
COORDINATE_LIMIT = 1e7
"""NMS sees coordinates up to this: one diverged box must not eat the others' precision."""
SHIFT_WEIGHT = 2.0
"""dx, dy are divided by this, dw, dh by 1 (Sparse R-CNN)."""


def _wide(boxes: Tensor) -> Tensor:
    """At least float32: half precision overflows at an area of 256 x 256."""
    return boxes if boxes.dtype == torch.float64 else boxes.float()


def cxcywh_to_xyxy(boxes: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
    """(..., 4) centre and size to corners, in the same unit."""
    boxes = _wide(boxes)
    centre, half = boxes[..., :2], boxes[..., 2:] * 0.5
    return torch.cat([centre - half, centre + half], dim=-1)


def xyxy_to_cxcywh(boxes: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
    """(..., 4) corners to centre and size, in the same unit."""
    boxes = _wide(boxes)
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) * 0.5, high - low], dim=-1)


def area(boxes: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch"]:
    """(..., 4) xyxy to (...) areas; boxes turned inside out count as empty."""
    boxes = _wide(boxes)
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def clip(boxes: Float[Tensor, "*batch 4"], size: tuple[int, int]) -> Float[Tensor, "*batch 4"]:
    """Clip (..., 4) xyxy boxes to an image of size (height, width)."""
    boxes, (height, width) = _wide(boxes), size
    limit = boxes.new_tensor([width, height, width, height])
    return torch.minimum(boxes.clamp(min=0), limit)


def _intersection_union(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    a, b = _wide(a), _wide(b)
    low = torch.maximum(a[..., :2], b[..., :2])
    high = torch.minimum(a[..., 2:], b[..., 2:])
    intersection = (high - low).clamp(min=0).prod(-1)
    return intersection, area(a) + area(b) - intersection


def _safe_ratio(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole where whole > 0, else 0, with finite gradients."""
    positive = whole > 0
    return torch.where(positive, part / torch.where(positive, whole, 1.0), 0.0)


def iou(a: Float[Tensor, "*#batch 4"], b: Float[Tensor, "*#batch 4"]) -> Float[Tensor, "*batch"]:
    """Intersection over union of xyxy boxes that broadcast: (..., 4), (..., 4) to (...).

    Pairs come from broadcasting, `iou(a[:, None], b[None])` is (n, m). Empty with empty is 0.
    """
    return _safe_ratio(*_intersection_union(a, b))


def giou(a: Float[Tensor, "*#batch 4"], b: Float[Tensor, "*#batch 4"]) -> Float[Tensor, "*batch"]:
    """Generalised IoU of xyxy boxes that broadcast, in (-1, 1]; degenerate boxes stay finite."""
    a, b = _wide(a), _wide(b)
    intersection, union = _intersection_union(a, b)
    low = torch.minimum(a[..., :2], b[..., :2])
    high = torch.maximum(a[..., 2:], b[..., 2:])
    hull = (high - low).clamp(min=0).prod(-1)
    return _safe_ratio(intersection, union) - _safe_ratio(hull - union, hull)


def apply_deltas(
    boxes: Float[Tensor, "*batch 4"], deltas: Float[Tensor, "*batch 4"]
) -> Float32[Tensor, "*batch 4"]:
    """Refine xyxy boxes by (dx, dy, dw, dh): centre += d * size, size *= exp(d).

    Args:
        boxes: (..., 4) xyxy, any unit.
        deltas: (..., 4) as the network predicts them, before division by `SHIFT_WEIGHT`.

    Returns:
        (..., 4) xyxy float32, not clipped.
    """
    centre, size = xyxy_to_cxcywh(boxes.float()).chunk(2, dim=-1)
    shift, log_scale = deltas.float().chunk(2, dim=-1)
    scale = log_scale.clamp(max=MAX_LOG_SCALE).exp()
    return cxcywh_to_xyxy(torch.cat([centre + shift / SHIFT_WEIGHT * size, size * scale], dim=-1))


def class_nms(
    boxes: Float[Tensor, "n 4"],
    scores: Float[Tensor, "n"],
    labels: Int64[Tensor, "n"],
    threshold: float,
) -> Int64[Tensor, "_"]:
    """Non-maximum suppression within each class.

    Classes are kept apart by shifting each one's boxes to a region of its own, in float64: exact
    also for boxes outside the image and for many classes.

    Args:
        boxes: (n, 4) xyxy.
        scores: (n,).
        labels: (n,) int64.
        threshold: Boxes with a higher IoU than this with a better one of their class go.

    Returns:
        Indices of what stays, by descending score.
    """
    if not len(boxes):
        return labels.new_zeros(0)
    wide = boxes.double().clamp(-COORDINATE_LIMIT, COORDINATE_LIMIT)
    span = wide.max() - wide.min() + 1
    shifted = wide + (labels.double() * span)[:, None]
    keep: Tensor = nms(shifted, scores.double(), threshold)
    return keep
