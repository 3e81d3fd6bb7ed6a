"""How do results look? Overlays of one result, and film strips of a denoising from noise to masks.

Nothing here builds full-size masks: every instance is painted inside its own window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from diffinst.ops.boxes import iou
from diffinst.results.render.marks import (
    INK,
    Color,
    check_image,
    draw_boxes,
    draw_labels,
    instance_colors,
    paint_masks,
)

if TYPE_CHECKING:
    from diffinst.results.instances import Instances

LINE_SHARE = 1 / 360  # line width per square root of the image's area: 1.5 pixels at 480 x 640
FONT_SHARE = 1 / 45  # text size likewise: 12 pixels at 480 x 640
MIN_LINE, MAX_LINE, MIN_FONT = 1.0, 5.0, 11
UNCROWDED = 40  # more noise boxes than this are drawn fainter, so that the image shows through
SAME_OBJECT_IOU = 0.3  # from here on a film strip gives a box the colour of the final object
FAINT_INK, PAPER, FRAME_LINE = (122, 130, 140), (255, 255, 255), (222, 226, 231)


@dataclass(frozen=True)
class Frame:
    """One moment of a denoising.

    Attributes:
        title: what the moment is called, for instance "step 2, stage 6".
        instances: what was known then, in pixels of the image.
        boxes_only: draw no masks, for instance for the noise at the start.
    """

    title: str
    instances: Instances
    boxes_only: bool = False


def overlay(
    image: NDArray[np.uint8],
    instances: Instances,
    *,
    show_boxes: bool = False,
    show_labels: bool = True,
    alpha: float = 0.5,
) -> Image.Image:
    """Draws instances over their image: translucent fills, crisp contours, labels where they fit.

    Smaller instances lie on top. A label ("cat 0.93") fits where it is no wider than its instance,
    at most 0.4 times as high, and touches no label of a higher score. If the labels that fit stand
    for less than half of the area of all instances, as in crowds of small objects, none is drawn.
    Pillow's built-in font writes them; it has no letters beyond ASCII.

    Args:
        image: uint8 (H, W, 3), RGB.
        instances: the result for this image.
        show_boxes: draw the boxes too.
        show_labels: write class and score.
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
    colors = instance_colors(instances)
    side = math.sqrt(image.shape[0] * image.shape[1])
    line = min(max(MIN_LINE, side * LINE_SHARE), MAX_LINE)
    canvas = paint_masks(image, instances, colors, alpha, line)
    if show_boxes:
        draw_boxes(canvas, instances.boxes.tolist(), colors, max(1, round(line)))
    if show_labels:
        draw_labels(canvas, instances, colors, max(MIN_FONT, round(side * FONT_SHARE)))
    return canvas


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
    _check_grid(len(frames), columns, tile_width)
    last = frames[-1].instances.to("cpu")
    last_colors = instance_colors(last)
    tiles = []
    for frame in frames:
        check_image(image, frame.instances.image_size)
        instances = frame.instances.to("cpu")
        colors = _inherited_colors(instances, last, last_colors)
        tile = _tile(image, instances, colors, frame.boxes_only, tile_width)
        noun = "box" if frame.boxes_only else "instance"
        ending = "" if len(instances) == 1 else "es" if noun == "box" else "s"
        tiles.append((tile, f"{frame.title}\n{len(instances)} {noun}{ending}"))
    return contact_sheet(tiles, columns=columns, tile_width=tile_width)


def contact_sheet(
    images_with_titles: Sequence[tuple[Image.Image, str]],
    *,
    columns: int | None = None,
    tile_width: int = 320,
) -> Image.Image:
    """Lays images out in a grid on white, each with a caption below.

    Args:
        images_with_titles: images of any size, scaled to `tile_width`. The first line of a
            title is written dark, a second one faint.
        columns: tiles per row; by default the number (up to five) that leaves the fewest gaps.
        tile_width: width of a tile in pixels.

    Raises:
        ValueError: there are no images, or `columns` or `tile_width` is not positive.
    """
    count = len(images_with_titles)
    _check_grid(count, columns, tile_width)
    columns = min(columns or _fewest_gaps(count), count)
    size = max(MIN_FONT, tile_width // 20)
    font, small = ImageFont.load_default(size=size), ImageFont.load_default(size=size * 5 / 6)
    gap, leading = max(6, tile_width // 20), math.ceil(size * 1.35)
    lines = max(title.count("\n") + 1 for _, title in images_with_titles)
    tiles = [_to_width(image, tile_width) for image, _ in images_with_titles]
    rows = [tiles[start : start + columns] for start in range(0, count, columns)]
    heights = [max(tile.height for tile in row) + leading * lines + gap // 2 for row in rows]
    sheet = Image.new(
        "RGB", (gap + columns * (tile_width + gap), gap + sum(heights) + gap * len(rows)), PAPER
    )
    draw = ImageDraw.Draw(sheet)
    for i, (tile, (_, title)) in enumerate(zip(tiles, images_with_titles, strict=True)):
        row, column = divmod(i, columns)
        x = gap + column * (tile_width + gap)
        y = gap + sum(heights[:row]) + gap * row
        draw.rectangle((x - 1, y - 1, x + tile.width, y + tile.height), outline=FRAME_LINE)
        sheet.paste(tile, (x, y))
        for k, text in enumerate(title.split("\n")):
            face, ink = (font, INK) if k == 0 else (small, FAINT_INK)
            baseline = y + tile.height + gap // 2 + leading * k + size * 0.8
            draw.text(
                (x, baseline), _shortened(text, face, tile_width), fill=ink, font=face, anchor="ls"
            )
    return sheet


def _inherited_colors(
    instances: Instances, last: Instances, last_colors: Sequence[Color]
) -> list[Color]:
    """Own colours, except where a box overlaps an object of the last frame well."""
    colors = instance_colors(instances)
    if len(instances) == 0 or len(last) == 0:
        return colors
    overlap, partner = iou(instances.boxes[:, None], last.boxes[None]).max(dim=1)
    for i, (shared, j) in enumerate(zip(overlap.tolist(), partner.tolist(), strict=True)):
        if shared >= SAME_OBJECT_IOU:
            colors[i] = last_colors[j]
    return colors


def _tile(
    image: NDArray[np.uint8],
    instances: Instances,
    colors: Sequence[Color],
    boxes_only: bool,
    tile_width: int,
) -> Image.Image:
    """Draws one frame so that lines have the same width in tiles of any image size."""
    zoom = tile_width / image.shape[1]
    if boxes_only:
        canvas = Image.fromarray(image)
    else:
        canvas = paint_masks(image, instances, colors, alpha=0.5, line=1.5 / zoom)
    tile = _to_width(canvas, tile_width)
    opacity = min(1.0, math.sqrt(UNCROWDED / max(1, len(instances)))) if boxes_only else 1.0
    draw_boxes(tile, (instances.boxes * zoom).tolist(), colors, width=1, opacity=opacity)
    return tile


def _to_width(image: Image.Image, width: int) -> Image.Image:
    if image.width == width:
        return image.convert("RGB")
    height = max(1, round(image.height * width / image.width))
    return image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)


def _check_grid(count: int, columns: int | None, tile_width: int) -> None:
    if count < 1 or tile_width < 1 or (columns is not None and columns < 1):
        raise ValueError(
            f"cannot lay out {count} images with columns={columns} and tile_width={tile_width}; "
            "each of the three must be at least 1"
        )


def _fewest_gaps(count: int) -> int:
    """Tiles per row: all in one row up to five, else three to five; the wider grid wins ties."""
    return count if count <= 5 else min((5, 4, 3), key=lambda columns: -count % columns)


def _shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
