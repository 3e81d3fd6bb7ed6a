"""One image twice: what was predicted, and what is annotated, right and wrong told by colour."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffinst.config import Reading
from diffinst.datasets.records import ImageRecord
from diffinst.datasets.segmentation import Segmentation, compressed
from diffinst.datasets.split import Split
from diffinst.evaluation.matching import IOU_50, match
from diffinst.io.images import read_image
from diffinst.results.convert import CocoResult, from_rle
from diffinst.results.crops import CompressedRLE
from diffinst.results.render.marks import Color, draw_masks
from diffinst.results.render.sheet import to_width

# Told apart by people who do not see red and green as different.
RIGHT: Color = (41, 182, 255)
FALSE: Color = (255, 77, 66)
MISSED: Color = (255, 200, 31)
IGNORED: Color = (150, 156, 163)

_FILL = 0.4  # opacity
_LINE = 1.5  # pixels of the tile


def side_by_side(
    record: ImageRecord,
    results: Sequence[CocoResult],
    split: Split,
    tile_width: int,
    reading: Reading | None = None,
) -> list[tuple[Image.Image, str]]:
    """The prediction and the annotation of an image as two tiles with captions for a sheet.

    Blue is right, red a false positive, yellow a missed object (each at IoU 0.5), grey what does
    not count: crowds, and predictions in them or of classes not looked for.

    Args:
        record: The image.
        results: What was found there, in the split's categories.
        split: Where the image comes from.
        tile_width: Width of a tile in pixels.
        reading: How the image is read.

    Raises:
        ImageReadError: The image cannot be read.
    """
    image = read_image(record.path, reading)
    matched = match(record, results, split)
    hit, false, ignored = (marks[IOU_50] for marks in (matched.hit, matched.false, matched.ignored))
    found, missed = matched.found[IOU_50], matched.missed[IOU_50]
    size = (record.height, record.width)
    line = max(1.0, _LINE * record.width / tile_width)
    tiles = []
    for shapes, colors in (
        ([result["segmentation"] for result in results], _pick(RIGHT, hit, FALSE, false)),
        ([a.segmentation for a in record.annotations], _pick(RIGHT, found, MISSED, missed)),
    ):
        rles = [compressed(cast("Segmentation", shape), *size) for shape in shapes]
        crops = from_rle(cast("list[CompressedRLE]", rles), size)
        tiles.append(to_width(draw_masks(image, crops, colors, _FILL, line), tile_width))
    of_found = {"right (blue)": hit, "wrong (red)": false, "ignored (grey)": ignored}
    of_truth = {"found (blue)": found, "missed (yellow)": missed, "crowd (grey)": matched.crowd}
    at_50, mean = matched.f1_at[IOU_50], matched.f1
    f1 = f"F1 at IoU 0.5: {at_50:.2f}, mean over IoU 0.5 to 0.95: {mean:.2f}"
    captions = (
        f"{record.path.name}\n{_counts('found', of_found)}\n{f1}",
        f"annotation\n{_counts('annotated', of_truth)}",
    )
    return list(zip(tiles, captions, strict=True))


def _counts(whole: str, parts: Mapping[str, NDArray[np.bool_]]) -> str:
    """All that parts mark, then part by part ("3 found: 2 right, 1 wrong"), none of 0."""
    counts = {name: int(marks.sum()) for name, marks in parts.items() if marks.any()}
    told = ", ".join(f"{count} {name}" for name, count in counts.items())
    return f"{sum(counts.values())} {whole}" + (f": {told}" if told else "")


def _pick(
    first: Color, is_first: Iterable[bool], second: Color, is_second: Iterable[bool]
) -> list[Color]:
    pairs = zip(is_first, is_second, strict=True)
    return [first if a else second if b else IGNORED for a, b in pairs]
