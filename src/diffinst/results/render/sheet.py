"""The contact sheet: images in a grid, each with a caption."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from diffinst.results.render.marks import INK, PAPER

FAINT_INK, FRAME_LINE = (122, 130, 140), (222, 226, 231)
MIN_FONT = 11


def contact_sheet(
    images_with_titles: Sequence[tuple[Image.Image, str]],
    *,
    columns: int | None = None,
    tile_width: int = 320,
    heading: str = "",
) -> Image.Image:
    """Lays images out in a grid on white, each with a caption below.

    Args:
        images_with_titles: images of any size, scaled to `tile_width`. The first line of a
            title is written dark, the others faint.
        columns: tiles per row; by default the number (up to five) that leaves the fewest gaps.
        tile_width: width of a tile in pixels.
        heading: one line above the grid; empty: none.

    Raises:
        ValueError: there are no images, or `columns` or `tile_width` is not positive.
    """
    count = len(images_with_titles)
    check_grid(count, columns, tile_width)
    columns = min(columns or _fewest_gaps(count), count)
    size = max(MIN_FONT, tile_width // 20)
    font, small = ImageFont.load_default(size=size), ImageFont.load_default(size=size * 5 / 6)
    gap, leading = max(6, tile_width // 20), math.ceil(size * 1.35)
    lines = max(title.count("\n") + 1 for _, title in images_with_titles)
    tiles = [to_width(image, tile_width) for image, _ in images_with_titles]
    rows = [tiles[start : start + columns] for start in range(0, count, columns)]
    heights = [max(tile.height for tile in row) + leading * lines + gap // 2 for row in rows]
    top = gap + (leading + gap // 2 if heading else 0)
    width = gap + columns * (tile_width + gap)
    sheet = Image.new("RGB", (width, top + sum(heights) + gap * len(rows)), PAPER)
    draw = ImageDraw.Draw(sheet)
    text = _shortened(heading, font, width - 2 * gap)
    draw.text((gap, gap + size * 0.8), text, fill=INK, font=font, anchor="ls")
    for i, (tile, (_, title)) in enumerate(zip(tiles, images_with_titles, strict=True)):
        row, column = divmod(i, columns)
        x = gap + column * (tile_width + gap)
        y = top + sum(heights[:row]) + gap * row
        draw.rectangle((x - 1, y - 1, x + tile.width, y + tile.height), outline=FRAME_LINE)
        sheet.paste(tile, (x, y))
        for k, text in enumerate(title.split("\n")):
            face, ink = (font, INK) if k == 0 else (small, FAINT_INK)
            baseline = y + tile.height + gap // 2 + leading * k + size * 0.8
            draw.text(
                (x, baseline), _shortened(text, face, tile_width), fill=ink, font=face, anchor="ls"
            )
    return sheet


def to_width(image: Image.Image, width: int) -> Image.Image:
    """Scales an image of any mode to RGB of this width, sides in proportion."""
    if image.width == width:
        return image.convert("RGB")
    height = max(1, round(image.height * width / image.width))
    return image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)


def check_grid(count: int, columns: int | None, tile_width: int) -> None:
    """Refuses a grid without tiles, or with columns or tiles of no width.

    Raises:
        ValueError: one of the three numbers is below 1.
    """
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
