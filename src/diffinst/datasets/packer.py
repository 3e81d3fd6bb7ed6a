"""Collects objects one by one into flat arrays, before it is known which image each is on."""

from __future__ import annotations

import reprlib
from array import array
from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from pycocotools import mask as mask_utils

from diffinst.datasets.packed import COMPRESSED, PLAIN, POLYGONS, Floats, Ints, Packed, pack_texts
from diffinst.datasets.problems import refused, shown
from diffinst.datasets.segmentation import (
    MAX_RUN,
    RLE,
    Segmentation,
    checked,
    compressed,
)

_Kind = TypeVar("_Kind", bound=np.generic)

_NONE = float("nan")


class Images:
    """The images of a split, in the order of the file."""

    def __init__(self) -> None:
        self.ids = array("q")
        self.sizes = array("i")
        self.names: list[str] = []
        self.other_names: list[str] = []
        self.negative = Rows("i")  # labels; none at all, or a row for each image
        self.not_exhaustive = Rows("i")

    def add(self, number: int, height: int, width: int, name: str, other: str = "") -> None:
        """Take one; `other` is where else its file may be."""
        self.ids.append(number)
        self.sizes.extend((height, width))
        self.names.append(name)
        self.other_names.append(other)


class Rows:
    """A ragged column that grows."""

    def __init__(self, kind: str) -> None:
        self.values = array(kind)
        self.starts = array("q", [0])

    def add(self, row: Iterable[float]) -> None:
        """Take one row."""
        self.values.extend(row)  # type: ignore[arg-type]
        self.starts.append(len(self.values))


class Objects:
    """The objects of a split in the order of the file, those without a mask among them.

    Attributes:
        ids: As in the file.
        images: What the file calls the image.
        categories: What the file calls the class.
        boxes: x, y, width, height; NaN where the file has none.
        areas: NaN where the file has none.
        emptied: 0 is sound, else the number of one of `EMPTIED`.
    """

    EMPTIED = (
        "",
        "annotations: single polygons of fewer than three points",
        "annotations with polygons of fewer than three points",
        "annotations with an empty segmentation",
    )
    SHORTENED = 1  # the mask is without some polygons; those above it have none left

    def __init__(self) -> None:
        self.ids, self.images, self.categories = array("q"), array("q"), array("q")
        self.boxes, self.areas = array("d"), array("d")
        self.crowds, self.kinds, self.emptied = bytearray(), bytearray(), bytearray()
        self.shapes = array("q")
        self.mask_sizes = array("q")  # of RLE, height and width; 0, 0 for polygons
        self.polygons = Rows("d")
        self.runs = bytearray()

    def add(
        self,
        number: int,
        image: int,
        category: int,
        segmentation: Segmentation,
        box: Sequence[float] | None,
        area: float | None,
        crowd: int,
    ) -> None:
        """Take one.

        Raises:
            DatasetError: The segmentation is broken.
        """
        kind, first, last, emptied, size = self._shape(segmentation)
        self.add_ids(number, image, category)
        self.boxes.extend(box or (_NONE,) * 4)
        self.areas.append(_NONE if area is None else area)
        self.crowds.append(crowd)
        self.kinds.append(kind)
        self.emptied.append(emptied)
        self.shapes.extend((first, last))
        self.mask_sizes.extend(size)

    def add_ids(self, number: int, image: int, category: int) -> None:
        """Take what one calls itself, its image and its class, for checks of these alone."""
        self.ids.append(number)
        self.images.append(image)
        self.categories.append(category)

    def _shape(self, segmentation: Segmentation) -> tuple[int, int, int, int, Sequence[int]]:
        """Kind, place, what is wrong with it, and the size that an RLE says it has."""
        if isinstance(segmentation, list):
            usable = checked(segmentation, 0, 0)
            first = len(self.polygons.starts) - 1
            for polygon in usable:
                self.polygons.add(polygon)  # type: ignore[arg-type]
            left_out = len(segmentation) - len(usable)
            emptied = 0 if usable and not left_out else 1 if usable else 2 if segmentation else 3
            return POLYGONS, first, first + len(usable), emptied, (0, 0)
        size, counts = segmentation["size"], segmentation["counts"]
        if len(size) != 2 or min(size) < 1 or size[0] * size[1] > MAX_RUN:
            raise refused("segmentation-form", size=reprlib.repr(size), allowed=MAX_RUN)
        emptied = 0 if checked(segmentation, *size) else 3
        first = len(self.runs)
        if isinstance(counts, list):
            self.runs += np.array([] if emptied else counts, "<u4").tobytes()
            kind = PLAIN
        else:
            self.runs += counts.encode() if isinstance(counts, str) else counts
            kind = COMPRESSED
        return kind, first, len(self.runs), emptied, size

    def segmentation(self, j: int) -> Segmentation:
        """The mask of object j, as it can be drawn."""
        first, last = self.shapes[2 * j], self.shapes[2 * j + 1]
        if self.kinds[j] == POLYGONS:
            values, starts = self.polygons.values, self.polygons.starts
            rows = (values[starts[p] : starts[p + 1]] for p in range(first, last))
            return [list(map(float, row)) for row in rows]
        content = bytes(self.runs[first:last])
        size = [self.mask_sizes[2 * j], self.mask_sizes[2 * j + 1]]
        if self.kinds[j] == PLAIN:
            return RLE(size=size, counts=np.frombuffer(content, "<u4").tolist())
        return RLE(size=size, counts=content.decode())


def pack(images: Images, objects: Objects, rows: Ints, labels: Ints) -> tuple[Packed, list[str]]:
    """Put the objects to their images and leave out those without extent.

    Args:
        images: Of the split.
        objects: Of the split.
        rows: (m,) position of each object's image.
        labels: (m,) of the objects.

    Returns:
        The arrays, and what was left out: one line for each kind.
    """
    sizes = flat(images.sizes, np.int32).reshape(-1, 2)
    emptied = flat(objects.emptied, np.uint8)
    masked = emptied <= Objects.SHORTENED
    boxes = flat(objects.boxes, np.float64).reshape(-1, 4).copy()
    areas = flat(objects.areas, np.float64).copy()
    for j in np.flatnonzero(masked & (np.isnan(boxes[:, 0]) | np.isnan(areas))).tolist():
        height, width = sizes[rows[j]].tolist()
        rle = compressed(objects.segmentation(j), height, width)
        if np.isnan(boxes[j, 0]):
            boxes[j] = mask_utils.toBbox(rle)
        if np.isnan(areas[j]):
            areas[j] = float(mask_utils.area(rle))
    corners = clipped(boxes, sizes[rows])
    extended = (corners[:, 2:] > corners[:, :2]).all(1)

    ids = flat(objects.ids, np.int64)
    noted = [(emptied == code, Objects.EMPTIED[code]) for code in (2, 3)]
    noted += [(masked & ~extended, "annotations whose box has no area inside the image")]
    noted += [(masked & extended & (emptied == Objects.SHORTENED), Objects.EMPTIED[1])]
    noted = sorted((n for n in noted if n[0].any()), key=lambda n: int(n[0].argmax()))
    left_out = [f"{int(n.sum())} {what} (id {shown(ids[n].tolist())})" for n, what in noted]

    kept = np.flatnonzero(masked & extended)
    order = kept[np.argsort(rows[kept], kind="stable")]
    starts = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(np.bincount(rows[kept], minlength=len(sizes)), out=starts[1:])
    names, names_starts = pack_texts(images.names)
    other_names, other_names_starts = pack_texts(images.other_names)
    packed = Packed(
        image_ids=flat(images.ids, np.int64),
        sizes=sizes,
        names=names,
        names_starts=names_starts,
        other_names=other_names,
        other_names_starts=other_names_starts,
        negative=flat(images.negative.values, np.int32),
        negative_starts=_starts(images.negative, len(sizes)),
        not_exhaustive=flat(images.not_exhaustive.values, np.int32),
        not_exhaustive_starts=_starts(images.not_exhaustive, len(sizes)),
        object_starts=starts,
        ids=ids[order],
        boxes=corners[order],
        labels=labels[order].astype(np.int32),
        crowds=flat(objects.crowds, np.uint8)[order].astype(bool),
        areas=areas[order],
        kinds=flat(objects.kinds, np.uint8)[order],
        shapes=flat(objects.shapes, np.int64).reshape(-1, 2)[order],
        points=flat(objects.polygons.values, np.float64),
        points_starts=flat(objects.polygons.starts, np.int64),
        runs=flat(objects.runs, np.uint8),
    )
    return packed, left_out


def _starts(rows: Rows, count: int) -> Ints:
    empty = len(rows.starts) == 1
    return np.zeros(count + 1, np.int64) if empty else flat(rows.starts, np.int64)


def clipped(boxes: Floats, sizes: npt.NDArray[np.int32]) -> Floats:
    """Boxes x, y, width, height as xyxy inside images of (height, width)."""
    limits = sizes[:, ::-1].astype(np.float64)
    near, far = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    return np.concatenate([np.clip(near, 0, limits), np.clip(far, 0, limits)], axis=1)


def flat(values: array[float] | array[int] | bytearray, kind: type[_Kind]) -> npt.NDArray[_Kind]:
    """A growing column as an array, without a copy."""
    return np.frombuffer(values, kind) if len(values) else np.zeros(0, kind)
