"""Reads COCO and LVIS annotation files: which images, which objects on them, which classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from diffinst.datasets.coco_entries import SINGULAR, Category, Entries
from diffinst.datasets.json_stream import entries
from diffinst.datasets.packed import Contents, Ints
from diffinst.datasets.packer import Images, Objects, flat, pack
from diffinst.datasets.problems import DatasetError, shown

_Absent: TypeAlias = tuple[Sequence[int], Sequence[int]]  # LVIS's two lists of an image
_TABLES = ("images", "annotations", "categories")
_SHAPE = "COCO files are an object with lists 'images', 'annotations', 'categories'"
_UNANNOTATED = "image_info"  # COCO's names for images whose annotations it keeps to itself


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
    check = Entries(file)
    images, objects, categories = Images(), Objects(), list[Category]()
    absent: list[_Absent] = []
    tables = set()
    listed = False
    for table, position, entry in entries(file, _TABLES, _SHAPE):
        if position < 0:
            tables.add(table)
        elif table == "annotations":
            one = check.annotation(entry, position)
            try:
                objects.add(
                    one.id,
                    one.image_id,
                    one.category_id,
                    one.segmentation,
                    one.bbox,
                    one.area,
                    one.iscrowd,
                )
            except DatasetError as error:
                raise DatasetError(f"{file}: annotation {one.id}: {error}") from error
        elif table == "images":
            image = check.image(entry, position)
            images.add(image.id, image.height, image.width, image.file_name, image.other)
            listed |= image.neg_category_ids is not None
            absent.append((image.neg_category_ids or (), image.not_exhaustive_category_ids or ()))
        else:
            categories.append(check.category(entry, position))
    for table in _TABLES:
        optional = table == "annotations" and _UNANNOTATED in file.name
        if table not in tables and not optional:
            raise DatasetError(f"{file}: top-level '{table}': Field required; {_SHAPE}")
    check.finish()

    used = set(np.unique(flat(objects.categories, np.int64)).tolist())
    categories = _classes(categories, used, file)
    _check_unique(images.ids, "images", file, images.names)
    _check_unique(objects.ids, "annotations", file)
    labels = {category.id: label for label, category in enumerate(categories)}
    rows = _found(objects, "image_id", objects.images, images.ids, "images", file)
    found = _found(objects, "category_id", objects.categories, list(labels), "categories", file)
    _check_mask_sizes(images, objects, rows, file)
    frequency = tuple(category.frequency for category in categories if category.frequency)
    frequency = frequency if len(frequency) == len(categories) else ()
    federated = federated or listed or bool(frequency)
    if federated and objects.ids and not listed:
        raise DatasetError(
            f"{file}: no image has 'neg_category_ids', without which LVIS cannot tell what is "
            "absent from an image; fetch the file again, or, if all classes were looked for "
            "everywhere, remove 'frequency' from its 'categories' and 'lvis' from its name"
        )
    if federated:
        _add_absent(images, absent, labels, file)
    packed, left_out = pack(images, objects, rows, found)
    return Contents(
        packed=packed,
        classes=tuple(category.name for category in categories),
        category_ids=tuple(labels),
        federated=federated,
        frequency=frequency,
        left_out=tuple(left_out),
    )


def _classes(categories: list[Category], used: set[int], file: Path) -> list[Category]:
    """By ascending id, without the root that Roboflow adds."""
    _check_unique([category.id for category in categories], "categories", file)
    parents = {category.supercategory for category in categories if category.id != 0}
    kept = [
        category
        for category in categories
        if not (
            category.id == 0
            and category.supercategory == "none"
            and category.name in parents
            and category.id not in used
        )
    ]
    if not kept:
        raise DatasetError(f"{file}: 'categories' is empty; list at least one class")
    names = Counter(category.name for category in kept)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise DatasetError(
            f"{file}: 'categories' holds two of the name {shown(twice)}; rename or merge them"
        )
    return sorted(kept, key=lambda category: category.id)


def _add_absent(
    images: Images, absent: Iterable[_Absent], labels: Mapping[int, int], file: Path
) -> None:
    """Take LVIS's lists of each image, given as category ids."""
    for number, lists in zip(images.ids, absent, strict=True):
        for key, ids in zip(
            ("neg_category_ids", "not_exhaustive_category_ids"), lists, strict=True
        ):
            unknown = [i for i in ids if i not in labels]
            if unknown:
                raise DatasetError(
                    f"{file}: image {number}: {key} holds {unknown[0]}, which is not among the ids "
                    f"in 'categories' ({shown(labels)}); add that category or remove the id"
                )
        negative, not_exhaustive = lists
        images.negative.add(labels[i] for i in negative)
        images.not_exhaustive.add(labels[i] for i in not_exhaustive)


def _check_unique(ids: Iterable[int], table: str, file: Path, names: Sequence[str] = ()) -> None:
    numbers = np.fromiter(ids, np.int64)
    _, first, counts = np.unique(numbers, return_index=True, return_counts=True)
    again = np.sort(first[counts > 1])
    if not len(again):
        return
    double = numbers[again].tolist()
    rivals = [names[i] for i in np.flatnonzero(numbers == double[0]).tolist()] if names else []
    which = f"{double[0]} is {' and '.join(rivals[:2])}; " if rivals else ""
    raise DatasetError(
        f"{file}: {SINGULAR[table]} id {shown(double)} stands more than once in '{table}'; "
        f"{which}ids have to be unique: remove or renumber the others"
    )


def _found(
    objects: Objects, key: str, wanted: Iterable[int], ids: Iterable[int], table: str, file: Path
) -> Ints:
    """Positions of ids in a table."""
    known, numbers = np.fromiter(ids, np.int64), np.fromiter(wanted, np.int64)
    order = np.argsort(known, kind="stable")
    places = np.searchsorted(known[order], numbers)
    rows: Ints = np.append(order, -1)[places]  # -1: behind the last one
    unknown = np.flatnonzero(np.append(known, 0)[rows] != numbers)
    unknown = np.union1d(unknown, np.flatnonzero(rows < 0))
    if len(unknown):
        j = int(unknown[0])
        raise DatasetError(
            f"{file}: annotation {objects.ids[j]}: {key} {numbers[j]} is not among the ids in "
            f"'{table}' ({shown(known.tolist())}); add that {SINGULAR[table]} or remove the "
            "annotation"
        )
    return rows


def _check_mask_sizes(images: Images, objects: Objects, rows: Ints, file: Path) -> None:
    sizes = flat(images.sizes, np.int32).reshape(-1, 2)[rows]
    masks = flat(objects.mask_sizes, np.int64).reshape(-1, 2)
    wrong = np.flatnonzero((masks != 0).any(1) & (masks != sizes).any(1))
    if len(wrong):
        j = int(wrong[0])
        raise DatasetError(
            f"{file}: annotation {objects.ids[j]}: its RLE is of size {masks[j].tolist()} (height, "
            f"width), the image of {sizes[j].tolist()}; correct 'size' or the image's height "
            "and width"
        )
