"""The one object that a person means with a box, clicks on it, and clicks beside it."""

from __future__ import annotations

from collections.abc import Sequence

from diffinst.inference.image import EncodedImage
from diffinst.results.instances import Instances

Point = Sequence[float]
"""x, y in pixels of the image."""


def meant(
    image: EncodedImage,
    box: Sequence[float] | None = None,
    clicks: Sequence[Point] = (),
    exclude: Sequence[Point] = (),
) -> Instances:
    """One instance, or none where nothing is found.

    Of the answers to the box and to the clicks it is the one that holds most clicks, then the one
    of the higher score. What lies outside the image, as a hand may draw, is cut to it.

    Args:
        image: What is pointed at.
        box: x0, y0, x1, y1 in pixels, any corner first; None: clicks alone.
        clicks: On the object.
        exclude: On what is not meant.

    Raises:
        ValueError: Neither a box nor a click, or a box without area.
    """
    height, width = image.size

    def inside(point: Point) -> list[float]:
        x, y = point
        return [min(max(float(x), 0.0), width - 0.01), min(max(float(y), 0.0), height - 0.01)]

    boxes = []
    if box is not None:
        xs, ys = sorted((box[0], box[2])), sorted((box[1], box[3]))
        edges = [max(xs[0], 0), max(ys[0], 0), min(xs[1], width), min(ys[1], height)]
        boxes.append([float(edge) for edge in edges])
    points = [inside(click) for click in clicks]
    found = image.prompt(
        boxes=boxes or None,
        points=[points] if points else None,
        exclude=[inside(click) for click in exclude] or None,
    )
    found = found[found.scores > 0]
    if not len(found):
        return found
    held = [_held(found, i, points) for i in range(len(found))]
    return found[max(range(len(found)), key=lambda i: (held[i], float(found.scores[i])))]


def _held(found: Instances, i: int, points: Sequence[Point]) -> int:
    """How many points lie on the mask of an instance."""
    ((y0, x0), mask), = found[i].mask_crops.placed()  # fmt: skip
    height, width = mask.shape
    at = [(int(y) - y0, int(x) - x0) for x, y in points]
    return sum(0 <= y < height and 0 <= x < width and bool(mask[y, x]) for y, x in at)
