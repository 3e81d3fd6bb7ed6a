"""What a person pointed at, drawn over an overlay: boxes, clicks, and what was excluded."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

from diffinst.results.render.marks import INK, Color

MEANT: Color = (255, 255, 255)
EXCLUDED: Color = (255, 77, 66)
RADIUS_FRACTION = 1 / 100  # of a click, per square root of the image's area


def with_prompts(
    canvas: Image.Image,
    boxes: Sequence[Sequence[float]] = (),
    points: Sequence[Sequence[float]] = (),
    exclude: Sequence[Sequence[float]] = (),
) -> Image.Image:
    """A copy with boxes in white, clicks as white dots, and what is excluded in red.

    Args:
        canvas: RGB.
        boxes: n times x0, y0, x1, y1, pixels of it.
        points: n times x, y.
        exclude: Either of them.
    """
    drawn = canvas.copy()
    pen = ImageDraw.Draw(drawn)
    radius = max(2.0, math.sqrt(canvas.width * canvas.height) * RADIUS_FRACTION)
    line = max(1, round(radius / 3))
    marks = [(mark, MEANT) for mark in (*boxes, *points)] + [(mark, EXCLUDED) for mark in exclude]
    for mark, color in marks:
        if len(mark) == 4:
            x0, y0, x1, y1 = mark
            pen.rectangle((x0, y0, x1 - 1, y1 - 1), outline=INK, width=line + 2)
            inner = (x0 + 1, y0 + 1, max(x0 + 1, x1 - 2), max(y0 + 1, y1 - 2))
            pen.rectangle(inner, outline=color, width=line)
        else:
            x, y = mark
            dot = (x - radius, y - radius, x + radius, y + radius)
            pen.ellipse(dot, fill=color, outline=INK, width=line)
    return drawn
