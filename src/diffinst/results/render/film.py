"""The film strip: a denoising from noise to masks, as a grid of captioned tiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffinst.ops.boxes import iou
from diffinst.results.render.marks import (
    Color,
    Drawable,
    check_image,
    draw_boxes,
    draw_masks,
    instance_colors,
)
from diffinst.results.render.sheet import check_grid, contact_sheet, to_width

UNCROWDED = 40  # more noise boxes than this are drawn fainter, so that the image shows through
SAME_OBJECT_IOU = 0.3  # from here on a film strip gives a box the colour of the final object


@dataclass(frozen=True)
class Frame:
    """One moment of a denoising.

    Attributes:
        title: what the moment is called, for instance "step 2, stage 6".
        instances: what was known then, in pixels of the image.
        boxes_only: draw no masks, for instance for the noise at the start.
    """

    title: str
    instances: Drawable
    boxes_only: bool = False


def film_strip(
    image: NDArray[np.uint8],
    frames: Sequence[Frame],
    *,
    columns: int | None = None,
    tile_width: int = 320,
) -> Image.Image:
    """Shows a denoising as a grid of captioned tiles: noise boxes first, then boxes and masks.

    An object keeps its colour: in every frame a box takes the colour of the object of the last
    frame that it overlaps most, if it overlaps one well.

    Args:
        image: uint8 (H, W, 3), RGB.
        frames: the moments in order.
        columns: tiles per row; by default the number (up to five) that leaves the fewest gaps.
        tile_width: width of a tile in pixels.

    Raises:
        ValueError: there are no frames, a frame is of another image size, or `columns` or
            `tile_width` is not positive.
    """
    check_grid(len(frames), columns, tile_width)
    return contact_sheet(
        film_tiles(image, frames, tile_width), columns=columns, tile_width=tile_width
    )


def film_tiles(
    image: NDArray[np.uint8], frames: Sequence[Frame], tile_width: int
) -> list[tuple[Image.Image, str]]:
    """Each frame drawn by itself, with its caption.

    Args:
        image: uint8 (H, W, 3), RGB.
        frames: the moments in order; the colours are those of the last one.
        tile_width: width of a tile in pixels.

    Raises:
        ValueError: a frame is of another image size.
    """
    last = frames[-1].instances.to("cpu")
    last_colors = instance_colors(last.boxes, last.scores)
    tiles = []
    for frame in frames:
        check_image(image, frame.instances.image_size)
        instances = frame.instances.to("cpu")
        colors = _inherited_colors(instances, last, last_colors)
        tile = _tile(image, instances, colors, frame.boxes_only, tile_width)
        noun = "box" if frame.boxes_only else "instance"
        ending = "" if len(instances.boxes) == 1 else "es" if noun == "box" else "s"
        tiles.append((tile, f"{frame.title}\n{len(instances.boxes)} {noun}{ending}"))
    return tiles


def _inherited_colors(
    instances: Drawable, last: Drawable, last_colors: Sequence[Color]
) -> list[Color]:
    """Own colours, except where a box overlaps an object of the last frame well."""
    colors = instance_colors(instances.boxes, instances.scores)
    if len(instances.boxes) == 0 or len(last.boxes) == 0:
        return colors
    overlap, partner = iou(instances.boxes[:, None], last.boxes[None]).max(dim=1)
    for i, (shared, j) in enumerate(zip(overlap.tolist(), partner.tolist(), strict=True)):
        if shared >= SAME_OBJECT_IOU:
            colors[i] = last_colors[j]
    return colors


def _tile(
    image: NDArray[np.uint8],
    instances: Drawable,
    colors: Sequence[Color],
    boxes_only: bool,
    tile_width: int,
) -> Image.Image:
    """Draws one frame so that lines have the same width in tiles of any image size."""
    zoom = tile_width / image.shape[1]
    if boxes_only:
        canvas = Image.fromarray(image)
    else:
        canvas = draw_masks(image, instances.mask_crops, colors, alpha=0.5, line=1.5 / zoom)
    tile = to_width(canvas, tile_width)
    opacity = min(1.0, math.sqrt(UNCROWDED / max(1, len(instances.boxes)))) if boxes_only else 1.0
    draw_boxes(tile, (instances.boxes * zoom).tolist(), colors, width=1, opacity=opacity)
    return tile
