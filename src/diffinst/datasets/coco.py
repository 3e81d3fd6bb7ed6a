"""Reads annotation files as COCO's: which images, which objects on them, which classes."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeAlias, cast

import numpy as np

from diffinst.datasets.coco_entries import (
    LISTS_OF_CLASSES,
    NO_ID,
    Category,
    Entries,
    Image,
    Object,
    place_of,
)
from diffinst.datasets.listed import SHAPE, listed, refuse_boxes
from diffinst.datasets.packed import Contents, Ints
from diffinst.datasets.packer import Images, Objects, flat, pack
from diffinst.datasets.problems import (
    DatasetError,
    Place,
    Problems,
    Refusal,
    merge_namesakes,
    repeated,
    shown,
)
from diffinst.datasets.segmentation import Segmentation
from diffinst.datasets.shapes import TABLES

_Class: TypeAlias = tuple[Category, object]  # and its entry
_UNANNOTATED = "image_info"  # COCO's names for images whose annotations it keeps to itself


class Sink:
    """Takes the entries of a file one by one.

    Attributes:
        images: Those that were kept.
        objects: Those that were kept.
        lists: LVIS's two lists of classes of each image.
        raw: Entries come as they stand in the file, whatever their masks.
    """

    raw: ClassVar[bool] = False

    def __init__(self, file: Path) -> None:
        self.file = file
        self.images, self.objects = Images(), Objects()
        self.lists: list[tuple[Sequence[int], Sequence[int]]] = []
        self.listed = False  # some image has a list of absent classes

    def image(self, image: Image, entry: object) -> None:
        """Take an image."""
        self.images.add(image.id, image.height, image.width, image.file_name, image.other)
        self.listed |= image.neg_category_ids is not None
        self.lists.append((image.neg_category_ids or (), image.not_exhaustive_category_ids or ()))

    def object(self, one: Object, entry: object) -> None:
        """Take an annotation.

        Raises:
            DatasetError: Its segmentation is broken.
        """
        add, mask = self.objects.add, cast(Segmentation, one.segmentation)
        try:
            add(one.id, one.image_id, one.category_id, mask, one.bbox, one.area, one.iscrowd)
        except DatasetError as error:
            message = f"{self.file}: annotation {one.id}: {error}"
            raise DatasetError(message, error.code) from error


@dataclass(frozen=True)
class Found:
    """What the entries of a file mean together.

    Attributes:
        classes: By ascending id.
        renumbered: By id of a class: itself, or the class it is merged into.
        rows: (m,) position of each object's image; -1: there is none.
        labels: (m,) position of each object's class in `renumbered`; -1: there is none.
    """

    classes: list[_Class]
    renumbered: dict[int, int]
    rows: Ints
    labels: Ints


def read(file: Path, *, federated: bool = False) -> Contents:
    """Read and check an annotation file in one pass; no image is looked for.

    Objects without extent (an empty segmentation, polygons of fewer than three points, a box
    without area inside the image) are left out, which `Contents.left_out` tells.

    Args:
        file: COCO or LVIS json. Without 'annotations' only if its name has "image_info" in it.
        federated: It is LVIS's. So is, wherever it lies, a file whose images have lists of absent
            classes, or whose classes all have a frequency.

    Raises:
        DatasetError: The file cannot be read, or something in it is missing, of a wrong type,
            ambiguous or refers to nothing.
    """
    problems, sink = Refusal(file), Sink(file)
    try:
        found = scan(file, problems, sink)
    except DatasetError as error:
        if error.code == "annotation-entry":
            refuse_boxes(file, problems)
        raise
    assert found is not None  # refused before
    images, objects = sink.images, sink.objects
    _check_mask_sizes(images, objects, found.rows, problems)
    categories = [category for category, _ in found.classes]
    frequency = tuple(category.frequency for category in categories if category.frequency)
    frequency = frequency if len(frequency) == len(categories) else ()
    federated = federated or sink.listed or bool(frequency)
    if federated and objects.ids and not sink.listed:
        raise DatasetError(
            f"{file}: no image has 'neg_category_ids', without which LVIS cannot tell what is "
            "absent from an image; fetch the file again, or, if all classes were looked for "
            "everywhere, remove 'frequency' from its 'categories' and 'lvis' from its name"
        )
    if federated:
        labels = {category.id: label for label, category in enumerate(categories)}
        for negative, not_exhaustive in sink.lists:
            images.negative.add(labels[i] for i in negative)
            images.not_exhaustive.add(labels[i] for i in not_exhaustive)
    packed, left_out = pack(images, objects, found.rows, found.labels)
    return Contents(
        packed=packed,
        classes=tuple(category.name for category in categories),
        category_ids=tuple(category.id for category in categories),
        federated=federated,
        frequency=frequency,
        left_out=tuple(left_out),
    )


def scan(
    file: Path, problems: Problems, sink: Sink, rest: dict[str, object] | None = None
) -> Found | None:
    """Go through a file, entry by entry and then as a whole.

    Args:
        file: COCO or LVIS json, CVAT's XML, or a folder of LabelMe's files.
        problems: Gets what is wrong.
        sink: Gets the entries.
        rest: Gets the file's other keys.

    Returns:
        What the entries mean together; None where a list is missing.

    Raises:
        DatasetError: The file cannot be read, or is no object with such lists.
    """
    check = Entries(problems, masks=not sink.raw)
    categories: list[_Class] = []
    tables = {"annotations"} if _UNANNOTATED in file.name else set()
    for table, position, entry in listed(file, problems, rest, raw=sink.raw):
        if position < 0:
            tables.add(table)
        elif table == "annotations":
            sink.object(check.annotation(entry, position), entry)
        elif table == "images":
            sink.image(check.image(entry, position), entry)
        else:
            categories.append((check.category(entry, position), entry))
    here = Place(file_name=str(file))
    missing = [f"top-level '{table}': Field required" for table in TABLES if table not in tables]
    for problem in missing:
        problems.note("missing-table", here, problem=problem, remedy=SHAPE)
    if missing:
        return None
    check.finish()
    used = np.unique(flat(sink.objects.categories, np.int64)).tolist()
    classes, renumbered = _classes(categories, used, problems)
    if not classes:
        problem = "'categories' is empty"
        problems.note("missing-table", here, problem=problem, remedy="list at least one class")
        return None
    _check_unique(sink, problems)
    rows = _positions(sink, "image", sink.objects.images, sink.images.ids, problems)
    labels = _positions(sink, "category", sink.objects.categories, renumbered, problems)
    _check_lists(sink, renumbered, problems)
    return Found(classes, renumbered, rows, labels)


def _classes(
    categories: list[_Class], used: Sequence[int], problems: Problems
) -> tuple[list[_Class], dict[int, int]]:
    """`Found.classes` and `renumbered`, without the root that Roboflow adds."""
    parents = {category.supercategory for category, _ in categories if category.id != 0}
    by_id: dict[int, _Class] = {}
    kept = [
        (category, entry)
        for category, entry in categories
        if category.id != NO_ID
        and not (
            category.id == 0
            and category.supercategory == "none"
            and category.name in parents
            and 0 not in used
        )
    ]
    twins = repeated(kept, lambda one: one[0].id)
    for number, group in twins:
        names = [category.name for category, _ in group]
        problems.note(
            "duplicate-category-id",
            repaired=len(set(names)) == 1,
            ids=shown(number for number, _ in twins),
            detail=f"category {number}: {', '.join(map(repr, names))}",
        )
    for category, entry in sorted(kept, key=lambda one: one[0].id):
        by_id.setdefault(category.id, (category, entry))
    named = {number: category.name for number, (category, _) in by_id.items()}
    renumbered = merge_namesakes(named, problems, where="", table="categories", unit="categories")
    return [by_id[number] for number in named], renumbered


def _check_unique(sink: Sink, problems: Problems) -> None:
    images, objects = sink.images, sink.objects
    twins = _repeated(images.ids)
    for group in twins:
        number, names = images.ids[group[0]], [images.names[i] for i in group]
        problems.note(
            "duplicate-image-id",
            place_of(number, names[0]),
            ids=shown(images.ids[i] for i, *_ in twins),
            first=f"{number} is {' and '.join(names[:2])}",
            names=", ".join(names),
        )
    twins = [group for group in _repeated(objects.ids) if objects.ids[group[0]] != NO_ID]
    for group in twins:
        for j in group[1:]:
            place = place_of(objects.images[j], "", objects.ids[j])
            ids = shown(objects.ids[j] for j, *_ in twins)
            problems.note("duplicate-annotation-id", place, ids=ids)


def _repeated(ids: Sequence[int]) -> list[list[int]]:
    """Positions of equal ids."""
    if len(np.unique(np.fromiter(ids, np.int64))) == len(ids):
        return []
    return [group for _, group in repeated(range(len(ids)), ids.__getitem__)]


def _positions(
    sink: Sink, key: str, wanted: Sequence[int], ids: Iterable[int], problems: Problems
) -> Ints:
    """Positions of the objects' images or classes among the ids; -1 where they are not."""
    known, numbers = np.fromiter(ids, np.int64), np.fromiter(wanted, np.int64)
    order = np.argsort(known, kind="stable")
    places = np.searchsorted(known[order], numbers)
    rows: Ints = np.append(order, -1)[places]  # -1: behind the last one
    rows[np.append(known, 0)[rows] != numbers] = -1
    unknown = np.flatnonzero(rows < 0).tolist()
    known_ids = shown(known.tolist()) if unknown else ""
    for j in unknown:
        number = sink.objects.ids[j]
        place = place_of(sink.objects.images[j], "", number)
        where, given = f"annotation {number}", wanted[j]
        problems.note(f"unknown-{key}", place, where=where, given=given, known=known_ids)
    return rows


def _check_lists(sink: Sink, classes: Mapping[int, int], problems: Problems) -> None:
    """Check LVIS's lists of each image."""
    for i, lists in enumerate(sink.lists):
        for key, ids in zip(LISTS_OF_CLASSES, lists, strict=True):
            unknown = [number for number in ids if number not in classes]
            if unknown:
                problems.note(
                    "lvis-classes",
                    place_of(sink.images.ids[i], sink.images.names[i]),
                    where=f"image {sink.images.ids[i]}",
                    problem=f"{key} holds {unknown[0]}, which is not among the ids in 'categories' "
                    f"({shown(classes)})",
                    remedy="add that category or remove the id",
                    fields=f"{key}: {reprlib.repr(ids)}",
                )


def _check_mask_sizes(images: Images, objects: Objects, rows: Ints, problems: Problems) -> None:
    sizes = flat(images.sizes, np.int32).reshape(-1, 2)[rows]
    masks = flat(objects.mask_sizes, np.int64).reshape(-1, 2)
    for j in np.flatnonzero((masks != 0).any(1) & (masks != sizes).any(1)).tolist():
        where, given, size = f"annotation {objects.ids[j]}", masks[j].tolist(), sizes[j].tolist()
        problems.note("rle-size", where=where, given=given, size=size)
