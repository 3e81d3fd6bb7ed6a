"""How boxes (xyxy) lie to each other and to their image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from pycocotools import mask as mask_utils

from diffinst.datasets.segmentation import RLE, Segmentation

EDGE = 2.0  # pixels: rounding takes coordinates so far beyond the edge of an image

Box: TypeAlias = tuple[float, float, float, float]
Size: TypeAlias = tuple[int, int]


def mask_box(mask: RLE) -> Box:
    """Around the pixels of a mask."""
    x, y, width, height = mask_utils.toBbox(mask).tolist()
    return x, y, x + width, y + height


def extent(segmentation: Segmentation) -> Box | None:
    """Around the points of polygons; None for run lengths, or where there are no points."""
    if isinstance(segmentation, dict) or not any(segmentation):
        return None
    x = [number for polygon in segmentation for number in polygon[::2]]
    y = [number for polygon in segmentation for number in polygon[1::2]]
    return min(x), min(y), max(x), max(y)


def iou(a: Box, b: Box) -> float:
    """Area shared over area covered; 0 where neither has an area."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    both = sum(max(x1 - x0, 0.0) * max(y1 - y0, 0.0) for x0, y0, x1, y1 in (a, b)) - shared
    return shared / both if both > 0 else 0.0


def has_area_inside(box: Box, size: Size) -> bool:
    """Whether something of the box lies on an image of (height, width)."""
    left, right = (min(max(value, 0.0), float(size[1])) for value in box[::2])
    top, bottom = (min(max(value, 0.0), float(size[0])) for value in box[1::2])
    return right > left and bottom > top


def beyond(box: Box, size: Size) -> str:
    """How far the box reaches beyond the sides of the image, in words; empty: it does not."""
    left, top, right, bottom = box
    height, width = size
    over = {"left": -left, "top": -top, "right": right - width, "bottom": bottom - height}
    return ", ".join(f"{side} by {by:.4g} pixels" for side, by in over.items() if by > EDGE)


def shown(box: Sequence[float]) -> str:
    """For messages."""
    return "[" + ", ".join(f"{number:.4g}" for number in box) + "]"
