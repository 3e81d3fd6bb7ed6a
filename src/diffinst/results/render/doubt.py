"""An image with its doubtful objects marked: how many of the runs found each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from diffinst.results.render.marks import INK, Color, Drawable, check_image, draw_boxes, draw_masks

SURE: Color = (150, 158, 168)
DOUBTED: Color = (255, 184, 28)
RARE: Color = (255, 77, 66)
RARELY = 0.5
"""Stability up to which an object is drawn as rarely found."""
NUMBERED = 20  # objects with a number, the most doubtful first: more would hide the image
NUMBER_SIZE = 12  # pixels
LINE = 1.5  # pixels of the image


def draw_doubt(
    image: NDArray[np.uint8], found: Drawable, stability: Tensor, runs: int, *, width: int
) -> Image.Image:
    """Draws what every run found in grey, the rest in yellow, and in red what few found.

    Args:
        image: uint8 (H, W, 3), RGB.
        found: the result for this image.
        stability: float32 (n,) in [0, 1], the fraction of the runs that found each.
        runs: how many there were.
        width: of the drawing, in pixels; sides keep their proportion.

    Raises:
        ValueError: the image is not RGB or not of the size of the result.
    """
    check_image(image, found.image_size)
    found = found.to("cpu")
    values = stability.tolist()
    colors = [SURE if p >= 1 else RARE if p <= RARELY else DOUBTED for p in values]
    canvas = draw_masks(image, found.mask_crops, colors, 0.25, LINE)
    zoom = width / canvas.width
    size = (width, max(1, round(canvas.height * zoom)))
    canvas = canvas.resize(size, Image.Resampling.LANCZOS)
    order = np.argsort(values, kind="stable").tolist()
    doubted = [i for i in order if values[i] < 1]
    boxes = found.mask_crops.tight_boxes(empty=found.boxes) * zoom
    corners = [(x0, y0, x1, y1) for x0, y0, x1, y1 in boxes[doubted].tolist()]
    draw_boxes(canvas, corners, [colors[i] for i in doubted], 2)
    for i, (x0, y0, _, y1) in reversed(list(zip(doubted, corners, strict=True))[:NUMBERED]):
        _number(canvas, f"{round(values[i] * runs)}/{runs}", colors[i], x0, y0, y1)
    return canvas


def _number(canvas: Image.Image, text: str, color: Color, x: float, top: float, end: float) -> None:
    """A text above a box, or below it where the image ends."""
    font = ImageFont.load_default(size=NUMBER_SIZE)
    draw = ImageDraw.Draw(canvas)
    height, length = NUMBER_SIZE + 2, font.getlength(text) + 4
    y = top - height if top >= height else min(end, canvas.height - height)
    left = max(0.0, min(x, canvas.width - length))
    draw.rectangle((left, y, left + length, y + height), fill=color)
    draw.text((left + 2, y), text, fill=INK, font=font)
