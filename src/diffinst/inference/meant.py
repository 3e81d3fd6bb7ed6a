"""The one object that a person means with a box, with clicks on it, or with both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from torch import Tensor, tensor

from diffinst.inference.image import EncodedImage
from diffinst.ops.boxes import iou
from diffinst.results.instances import Instances

Point: TypeAlias = Sequence[float]
"""x, y in pixels of the image."""


def meant(
    image: EncodedImage,
    box: Sequence[float] | None,
    clicks: Sequence[Point],
    exclude: Sequence[Sequence[float]] = (),
) -> Instances:
    """One instance, as `EncodedImage.prompt` gives it; its score is 0 where nothing was found.

    Of a box and clicks each has its answers. What holds most of the clicks is taken, then what fits
    the box best, grown to hold the clicks.

    Args:
        image: What is pointed at.
        box: x0, y0, x1, y1 in pixels of the image; None: clicks alone.
        clicks: On the object.
        exclude: Clicks and boxes on what is not meant.

    Raises:
        ValueError: As in `EncodedImage.prompt`.
    """
    if box is None or not len(clicks):
        boxes = None if box is None else [box]
        points = [clicks] if len(clicks) else None
        return image.prompt(boxes, points, exclude or None)
    found = Instances.cat(image.prompt_candidates([box], [clicks], exclude or None))
    held = [_held(found, i, clicks) for i in range(len(found))]
    fits = iou(found.tight().boxes[:, None], _around(box, clicks)[None]).flatten().tolist()
    return found[max(range(len(found)), key=lambda i: (bool(found.scores[i]), held[i], fits[i]))]


def _held(found: Instances, i: int, clicks: Sequence[Point]) -> int:
    """How many clicks lie on the mask of an instance."""
    ((y0, x0), mask), = found[i].mask_crops.placed()  # fmt: skip
    height, width = mask.shape
    at = [(int(y) - y0, int(x) - x0) for x, y in clicks]
    return sum(0 <= y < height and 0 <= x < width and bool(mask[y, x]) for y, x in at)


def _around(box: Sequence[float], clicks: Sequence[Point]) -> Tensor:
    """(4,) the box, grown to hold the clicks."""
    xs, ys = [x for x, _ in clicks], [y for _, y in clicks]
    x0, y0, x1, y1 = box
    return tensor([min(x0, *xs), min(y0, *ys), max(x1, *xs), max(y1, *ys)])
