"""Checks each object: mask, box and area, alone and beside its neighbours."""

from __future__ import annotations

from collections.abc import Callable

from pycocotools import mask as mask_utils

from diffinst.datasets.doctor.findings import Notebook
from diffinst.datasets.doctor.geometry import (
    Box,
    Size,
    beyond,
    extent,
    has_area_inside,
    iou,
    mask_box,
    shown,
)
from diffinst.datasets.doctor.segmentations import SAME_BOX, drawable
from diffinst.datasets.doctor.tables import ImageEntry, Tables, Thing
from diffinst.datasets.problems import repeated
from diffinst.datasets.segmentation import RLE, Segmentation, compressed

SURELY_XYXY = 0.9  # IoU with the mask's box
CLEARLY = 0.1  # a reading of the box is better than the other by this IoU
MANY_TIMES = 2.0  # 'area' may be so many times the pixels, or so many times less
AREA_SLACK = 16.0  # and differ by so many pixels: polygons and pixels differ at the rim

_Note = Callable[[str, str], None]


def inspect(tables: Tables) -> None:
    """Check every object of a split; put right what can be.

    Afterwards a thing that is kept has a mask, and its box and its area are right or None.
    """
    fractions = tables.files.format == "yolo"
    for image in tables.images:
        size = image.size
        for thing in image.things:
            if size is None or not thing.kept:  # the image cannot be read, or no such class
                thing.kept = False
                continue

            noted: set[str] = set()
            note = _noting(tables.notes, image, thing, noted)
            segmentation = drawable(thing.segmentation, size, thing.box, note, fractions=fractions)
            if "normalised" in noted:
                thing.box = None  # it may be in either unit
            thing.kept = segmentation is not None and _draw(thing, segmentation, size, note)
        _compare(image, tables)


def _noting(notes: Notebook, image: ImageEntry, thing: Thing, noted: set[str]) -> _Note:
    """Notes what is wrong with one thing, and remembers which codes."""

    def note(code: str, detail: str) -> None:
        noted.add(code)
        notes.note(code, image.place_of(thing, detail))

    return note


def _draw(thing: Thing, segmentation: Segmentation, size: Size, note: _Note) -> bool:
    """Draw the mask, compare it with box and area; whether there is anything to see."""
    mask = compressed(segmentation, *size)
    counts = mask["counts"]
    thing.mask = {
        "size": list(size),
        "counts": counts.encode() if isinstance(counts, str) else counts,
    }
    thing.segmentation = segmentation
    around = extent(segmentation)
    pixels = float(mask_utils.area(thing.mask))
    if pixels == 0:
        outside = around is not None and not has_area_inside(around, size)
        note("outside-image" if outside else "empty-mask", "")
        return False
    if around is not None and beyond(around, size):
        note("partly-outside", beyond(around, size))
        thing.segmentation = thing.mask
        around = None
        if thing.box is not None and beyond(thing.box, size):
            thing.box = None
    _check_box(thing, thing.mask, around, size, note)
    _check_area(thing, pixels, note)
    return True


def _check_box(thing: Thing, mask: RLE, around: Box | None, size: Size, note: _Note) -> None:
    """Compare with the mask's box (of its pixels, or of its polygons' points)."""
    if thing.box is None:
        return
    x0, y0, x1, y1 = thing.box
    as_corners = (x0, y0, x1 - x0, y1 - y0)  # the four numbers as they are in the file
    tight = mask_box(mask)
    outlines = [tight] if around is None else [tight, around]
    agreement = max(iou(thing.box, outline) for outline in outlines)
    otherwise = max(iou(as_corners, outline) for outline in outlines)
    given = f"bbox {shown(as_corners)}"
    if otherwise >= SURELY_XYXY and agreement < otherwise - CLEARLY:
        note("box-xyxy", f"{given}, the mask's corners are {shown(tight)}")
    elif not has_area_inside(thing.box, size):
        note("box-without-area", given)
    elif agreement < SAME_BOX:
        note("box-not-mask", f"they share {agreement:.0%}")
    elif beyond(thing.box, size):
        note("box-outside", beyond(thing.box, size))
    else:
        return
    thing.box = None


def _check_area(thing: Thing, pixels: float, note: _Note) -> None:
    area = thing.area
    if area is None:
        return
    times = max(area, pixels) / max(min(area, pixels), 1e-9)
    if times > MANY_TIMES and abs(area - pixels) > AREA_SLACK:
        note("area-field", f"area {area:g}, the mask has {pixels:g} pixels")
        thing.area = None


def _compare(image: ImageEntry, tables: Tables) -> None:
    """Note masks that stand twice on an image; of one class, the first is kept."""
    for _, twins in repeated(image.kept_things, _counts):
        first = twins[0]
        classes = {first.category_id}
        for thing in twins[1:]:
            if thing.category_id in classes:
                place = image.place_of(thing, f"the same as annotation {first.id}")
                tables.notes.note("duplicate-annotation", place)
                thing.kept = False
            else:
                names = f"'{tables.classes[first.category_id]}' (annotation {first.id})"
                detail = f"'{tables.classes[thing.category_id]}', also {names}"
                tables.notes.note("two-classes", image.place_of(thing, detail))
                classes.add(thing.category_id)


def _counts(thing: Thing) -> str:
    return "" if thing.mask is None else str(thing.mask["counts"])
