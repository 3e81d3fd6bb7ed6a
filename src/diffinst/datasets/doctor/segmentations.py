"""Puts a segmentation right as far as it can be drawn, whatever form it has."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from typing import TypeAlias, TypeGuard

import numpy as np
from pycocotools import mask as mask_utils

from diffinst.datasets.coco_entries import is_number
from diffinst.datasets.doctor.geometry import Box, Size, extent, iou, mask_box
from diffinst.datasets.segmentation import (
    MAX_COORDINATE,
    RLE,
    DatasetError,
    Segmentation,
    checked,
    compressed,
)

SAME_BOX = 0.5  # IoU of box and mask's box from which on they are taken for the same object
SMALLEST_SIDE = 8  # of an image; on smaller ones coordinates from 0 to 1 may be meant

Polygons: TypeAlias = list[list[float]]
Note: TypeAlias = Callable[[str, str], None]


def drawable(
    value: object, size: Size, box: Box | None, note: Note, *, fractions: bool = False
) -> Segmentation | None:
    """Put a segmentation right as far as it can be told what is meant.

    Args:
        value: As in the file.
        size: (height, width) of the image.
        box: xyxy pixels as the file says; decides between two readings.
        note: Called with the code of a finding and its detail.
        fractions: Coordinates are fractions of the image, as in YOLO's files.

    Returns:
        What `compressed` draws; None after a note if nothing is left.
    """
    if value is None:
        note("no-segmentation", "")
        return None
    if value == []:
        note("empty-segmentation", "")
        return None
    if isinstance(value, dict):
        return _run_lengths(value, size, box, note)
    read = _nested(value, note)
    if read is None:
        return None
    polygons = [polygon for polygon in read if _usable(polygon, note)]
    if any(len(polygon) % 2 for polygon in polygons):
        polygons = [polygon[: len(polygon) // 2 * 2] for polygon in polygons]
        around = extent(polygons)
        if around is None or box is None or iou(around, box) < SAME_BOX:
            return None
    if polygons and (fractions or _normalised(polygons, size, note)):
        height, width = size
        polygons = [
            [number * (width, height)[i % 2] for i, number in enumerate(polygon)]
            for polygon in polygons
        ]
    return polygons or None


def _nested(value: object, note: Note) -> list[list[object]] | None:
    """A list of polygons from whatever nesting; None after a note if it is none."""
    if isinstance(value, list):
        if all(map(is_number, value)):
            note("segmentation-form", "one polygon, not in a list of polygons")
            return [value]
        if len(value) >= 3 and all(map(_is_point, value)):
            note("polygon-pairs", f"{len(value)} points")
            return [[number for point in value for number in point]]
        if any(map(_is_point_list, value)):
            note("segmentation-form", "points [[[x, y], ...]]")
            lists = [polygon for polygon in value if _is_point_list(polygon)]
            return [[number for point in points for number in point] for points in lists]
        if all(isinstance(polygon, list) for polygon in value):
            return value
    note("segmentation-form", reprlib.repr(value))
    return None


def _usable(polygon: list[object], note: Note) -> TypeGuard[list[float]]:
    """Whether it encloses something, if its last number is ignored where it is one too many."""
    for number in polygon:
        if not is_number(number):
            note("not-a-number", reprlib.repr(number))
            return False
        if abs(number) > MAX_COORDINATE:
            note("wild-coordinates", f"{number:g}")
            return False
    if len(polygon) % 2:
        note("odd-polygon", f"{len(polygon)} numbers")
    elif len(polygon) < 6:
        note("short-polygon", f"{len(polygon) // 2} points")
    return len(polygon) >= 6


def _normalised(polygons: Polygons, size: Size, note: Note) -> bool:
    """Whether all coordinates lie in [0, 1], which pixels hardly ever do."""
    around = extent(polygons)
    if around is None or min(around) < 0 or max(around) > 1 or min(size) < SMALLEST_SIDE:
        return False
    note("normalised", f"from {min(around):.3g} to {max(around):.3g}")
    return True


def _run_lengths(
    value: dict[str, object], size: Size, box: Box | None, note: Note
) -> Segmentation | None:
    rle = _as_rle(value)
    if rle is None:
        note("segmentation-form", reprlib.repr(value))
        return None
    if rle["size"] == list(size):
        try:
            usable = checked(rle, *size)
        except DatasetError as error:
            note("rle-broken", str(error).partition(";")[0])
            return None
        if not usable:
            note("empty-segmentation", "run lengths without a pixel")
        return usable or None
    note("rle-size", f"size {reprlib.repr(rle['size'])}, the image is {list(size)} (height, width)")
    if rle["size"] == [size[1], size[0]] and box is not None:
        # Either only 'size' is swapped, or the mask lies on its side; the box tells.
        for candidate in (_drawn({**rle, "size": list(size)}), _turned(_drawn(rle))):
            if candidate is not None and iou(mask_box(candidate), box) >= SAME_BOX:
                return candidate
    return None


def _as_rle(value: dict[str, object]) -> RLE | None:
    """The value as RLE if it has that form."""
    size, counts = value.get("size"), value.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and all(map(_is_whole, size))):
        return None
    if isinstance(counts, str) or (isinstance(counts, list) and all(map(_is_whole, counts))):
        return {"size": size, "counts": counts}
    return None


def _drawn(rle: RLE) -> RLE | None:
    """As compressed RLE of its own size; None if it is broken or without a pixel."""
    height, width = rle["size"]
    try:
        usable = checked(rle, height, width)
    except DatasetError:
        return None
    return compressed(usable, height, width) if usable else None


def _turned(rle: RLE | None) -> RLE | None:
    """The mask with rows and columns swapped."""
    if rle is None:
        return None
    turned: RLE = mask_utils.encode(np.asfortranarray(mask_utils.decode(rle).T))
    return turned


def _is_point(value: object) -> TypeGuard[list[float]]:
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value))


def _is_point_list(value: object) -> TypeGuard[list[list[float]]]:
    return isinstance(value, list) and len(value) > 0 and all(map(_is_point, value))


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
