"""The overlay: a result drawn over its image."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffinst.results.render.marks import (
    Drawable,
    check_image,
    draw_boxes,
    draw_labels,
    draw_masks,
    draw_numbers,
    id_colors,
    instance_colors,
)

LINE_FRACTION = 1 / 300  # line width per square root of the image's area: 6 pixels at 1500 x 2000
FONT_FRACTION = 1 / 45  # text size likewise: 12 pixels at 480 x 640
MIN_LINE, MIN_FONT = 1.25, 11


def overlay(
    image: NDArray[np.uint8],
    instances: Drawable,
    *,
    boxes: bool = False,
    labels: bool = True,
    scores: bool = True,
    alpha: float = 0.5,
) -> Image.Image:
    """Draws instances over their image: translucent fills, crisp contours, labels where they fit.

    Smaller instances lie on top. A text ("cat 0.93") fits where it is no wider than its instance,
    at most 0.4 times as high, and touches no text of a higher score. If the texts that fit stand
    for less than half of the area of all instances, as in crowds of small objects, none is drawn.
    Pillow's built-in font writes them; it has no letters beyond ASCII.
    Instances with ids have the colour of their id, the same in every frame, and its number in place
    of class and score.

    Args:
        image: uint8 (H, W, 3), RGB.
        instances: the result for this image.
        boxes: draw the boxes too.
        labels: write the class.
        scores: write the score.
        alpha: opacity of the fills, in [0, 1].

    Returns:
        An RGB image of the same size; without instances, the image itself.

    Raises:
        ValueError: the image is not uint8 RGB or not of the size of the result, or alpha lies
            outside [0, 1].

    Example:
        >>> from diffinst.results.instances import Instances
        >>> blank = np.zeros((48, 64, 3), dtype=np.uint8)
        >>> overlay(blank, Instances.empty((48, 64), ("cat",))).size
        (64, 48)
    """
    check_image(image, instances.image_size)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; give an opacity from 0 (no fill) to 1 (opaque)")
    instances = instances.to("cpu")
    ids = instances.ids
    boxes_and_scores = instances.boxes, instances.scores
    colors = instance_colors(*boxes_and_scores) if ids is None else id_colors(ids)
    side = math.sqrt(image.shape[0] * image.shape[1])
    line = max(MIN_LINE, side * LINE_FRACTION)
    canvas = draw_masks(image, instances.mask_crops, colors, alpha, line)
    if boxes:
        draw_boxes(canvas, instances.boxes.tolist(), colors, max(1, round(line)))
    font_size = max(MIN_FONT, round(side * FONT_FRACTION))
    if ids is not None and (labels or scores):
        draw_numbers(canvas, instances, ids.tolist(), font_size)
    elif labels or scores:
        names = [instances.class_names[k] if labels else "" for k in instances.labels.tolist()]
        numbers = [f"{score:.2f}" if scores else "" for score in instances.scores.tolist()]
        texts = [f"{a} {b}".strip() for a, b in zip(names, numbers, strict=True)]
        draw_labels(canvas, instances, texts, colors, font_size)
    return canvas
