"""How does an annotated dataset look? A sheet of images with their masks and boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pycocotools import mask as mask_utils

from diffinst.datasets.doctor.examine import Report
from diffinst.datasets.doctor.geometry import Box, mask_box
from diffinst.datasets.doctor.samples import Drawn, Sample, one_per_finding, spread
from diffinst.datasets.segmentation import RLE, run_lengths
from diffinst.io.atomic import atomic_path
from diffinst.io.images import ImageReadError, read_image
from diffinst.results.crops import CroppedMasks
from diffinst.results.instances import Instances
from diffinst.results.render.marks import INK, PAPER
from diffinst.results.render.overlay import overlay
from diffinst.results.render.sheet import contact_sheet

TILE_WIDTH = 400
TALLEST = 3  # a tile, in widths: narrower images get a margin
NAME_SIZE = 22  # pixels, on an image of twice the width of a tile


def write_sheet(report: Report, file: Path, count: int) -> Path | None:
    """Draw `count` images that show the spread of the data, and one for each kind of finding.

    Returns:
        The file; None, and no file, where no image can be shown.
    """
    chosen = [*spread(report.splits, count), *one_per_finding(report.splits, report.findings)]
    tiles = []
    for sample in chosen:
        try:
            tiles.append((_tile(sample), sample.title))
        except ImageReadError:  # changed since it was examined
            continue
    if not tiles:
        file.unlink(missing_ok=True)  # of an earlier run
        return None
    sheet = contact_sheet(tiles, tile_width=TILE_WIDTH)
    with atomic_path(file) as temporary:
        sheet.save(temporary, format="PNG")
    return file


def _tile(sample: Sample) -> Image.Image:
    """The image at about twice the size of a tile, with masks, boxes and class names."""
    pixels = Image.fromarray(read_image(sample.path))
    height, width = sample.size or (pixels.height, pixels.width)
    zoom = min(2 * TILE_WIDTH / width, 3 * TILE_WIDTH / height)
    size = max(1, round(height * zoom)), max(1, round(width * zoom))
    # Where the image is not of the size that its annotations say, it is forced into that: so it
    # shows how masks and pixels do not fit.
    image = pixels.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    shown = [(drawn, box) for drawn in sample.drawn if (box := _box(drawn)) is not None]
    windows, patches = [], []
    for drawn, _ in shown:
        window, patch = _window(drawn, zoom, size)
        windows.append(window)
        patches.append(patch)
    limit = torch.tensor([size[1], size[0]] * 2, dtype=torch.float32)
    boxes = torch.tensor([box for _, box in shown], dtype=torch.float32).reshape(-1, 4) * zoom
    boxes = torch.minimum(torch.maximum(boxes, -limit), 2 * limit)
    instances = Instances(
        boxes=boxes,
        scores=torch.ones(len(shown)),
        labels=torch.zeros(len(shown), dtype=torch.int64),
        mask_crops=CroppedMasks(
            torch.tensor(windows, dtype=torch.int64).reshape(-1, 4), tuple(patches), size
        ),
        image_size=size,
        class_names=("",),
    )
    canvas = overlay(
        np.asarray(image), instances, boxes=True, labels=False, scores=False, alpha=0.4
    )
    _write_names(canvas, [drawn.name for drawn, _ in shown], boxes.tolist())
    if canvas.width * TALLEST >= canvas.height:
        return canvas
    wider = Image.new("RGB", (canvas.height // TALLEST, canvas.height), PAPER)
    wider.paste(canvas)
    return wider


def _box(drawn: Drawn) -> Box | None:
    """As the file says; where it says none, around the mask."""
    if drawn.box is not None or drawn.mask is None:
        return drawn.box
    return mask_box(drawn.mask)


def _window(
    drawn: Drawn, zoom: float, size: tuple[int, int]
) -> tuple[tuple[int, int, int, int], torch.Tensor]:
    """Where the mask lies on the enlarged image (y, x, height, width), and what is there."""
    if drawn.mask is None or mask_utils.area(drawn.mask) == 0:
        return (0, 0, 0, 0), torch.zeros(0, 0, dtype=torch.bool)
    x0, y0, x1, y1 = (round(side) for side in mask_box(drawn.mask))
    mask = _columns(drawn.mask, x0, x1)[y0:y1]
    top, left = min(int(y0 * zoom), size[0] - 1), min(int(x0 * zoom), size[1] - 1)
    height = min(max(1, round((y1 - y0) * zoom)), size[0] - top)
    width = min(max(1, round((x1 - x0) * zoom)), size[1] - left)
    resized = Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST)
    patch = torch.from_numpy(np.array(resized, dtype=bool))
    return (top, left, height, width), patch


def _columns(mask: RLE, first: int, last: int) -> NDArray[np.uint8]:
    """Columns of a mask; an image may say that it is so large that all of it is too much."""
    height = mask["size"][0]
    ends = np.cumsum(run_lengths(mask["counts"])).clip(first * height, last * height)
    runs = np.diff(ends, prepend=first * height)
    values = (np.arange(len(runs)) % 2).astype(np.uint8)
    columns: NDArray[np.uint8] = np.repeat(values, runs).reshape(last - first, height).T
    return columns


def _write_names(canvas: Image.Image, names: list[str], boxes: list[list[float]]) -> None:
    """Class names at the boxes that have room for them; none where all are of one class."""
    if len(set(names)) < 2:
        return
    font = ImageFont.load_default(size=NAME_SIZE)
    draw = ImageDraw.Draw(canvas)
    for name, (x0, y0, x1, y1) in zip(names, boxes, strict=True):
        length = font.getlength(name)
        if length < x1 - x0 and y1 - y0 > 2 * NAME_SIZE:
            left, top = max(0.0, x0) + 2, max(0.0, y0) + 2
            draw.rectangle((left, top, left + length + 6, top + 1.3 * NAME_SIZE), fill=PAPER)
            draw.text((left + 3, top), name, fill=INK, font=font)
