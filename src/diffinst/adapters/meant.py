"""The object that a hand-drawn box and clicks mean: what lies outside the image is cut to it."""

from __future__ import annotations

from collections.abc import Sequence

from diffinst.inference import meant as within
from diffinst.inference.image import EncodedImage
from diffinst.inference.meant import Point
from diffinst.results.instances import Instances


def meant(
    image: EncodedImage,
    box: Sequence[float] | None = None,
    clicks: Sequence[Point] = (),
    exclude: Sequence[Point] = (),
) -> Instances:
    """One instance, or none where nothing is found; see `inference.meant`.

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

    if box is not None:
        xs, ys = sorted((box[0], box[2])), sorted((box[1], box[3]))
        edges = [max(xs[0], 0), max(ys[0], 0), min(xs[1], width), min(ys[1], height)]
        box = [float(edge) for edge in edges]
    found = within.meant(
        image, box, [inside(click) for click in clicks], [inside(click) for click in exclude]
    )
    return found[found.scores > 0]
