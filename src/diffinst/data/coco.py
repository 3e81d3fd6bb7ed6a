"""Reads COCO-format instance segmentation: which pictures, which objects on them, which classes.

ROOT/annotations/instances_{split}.json
ROOT/{split}/...                          the pictures, subfolders allowed
"""

from __future__ import annotations

import json
import os
import reprlib
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeVar

from pycocotools import mask as mask_utils
from pydantic import ConfigDict, Discriminator, Field, Tag, TypeAdapter, ValidationError

from diffinst.data.segmentation import RLE, DatasetError, checked, compressed
from diffinst.data.split import Annotation, ImageRecord, Split

_SHOWN = 5
_SINGULAR = {"images": "image", "annotations": "annotation", "categories": "category"}


def find_split(root: str | Path, split: str) -> tuple[Path, Path]:
    """Find the annotation file and the picture folder of a split ("train", "val", ...).

    Raises:
        DatasetError: one is missing; the message lists what was looked for and what is there.
    """
    root = Path(root)
    annotation_file, image_dir = root / "annotations" / f"instances_{split}.json", root / split
    missing = [] if annotation_file.is_file() else [f"{annotation_file} (a file)"]
    missing += [] if image_dir.is_dir() else [f"{image_dir} (a folder)"]
    if missing:
        there = "; ".join(_describe(folder) for folder in (root, root / "annotations"))
        raise DatasetError(
            f"no split '{split}': {' and '.join(missing)} not found; {there}; give the folder "
            "that holds annotations/instances_{train,val}.json, train/ and val/"
        )
    return annotation_file, image_dir


def load_split(root: str | Path, split: str) -> Split:
    """Read and check one split; no picture is opened and no mask is drawn.

    Objects without extent (an empty segmentation, polygons of fewer than three points, a box
    without area inside the picture) are left out, with one warning a file.

    Args:
        root: the dataset's folder, see `find_split`.
        split: "train", "val", ...

    Raises:
        DatasetError: something is missing, of a wrong type, ambiguous or refers to nothing.

    Example:
        >>> from diffinst.data.synthetic import make_shapes
        >>> load_split(make_shapes("shapes"), "train").classes
        ('disc', 'box', 'triangle')
    """
    file, image_dir = find_split(root, split)
    tables = _read(file)
    categories = sorted(_by_id(tables.categories, file, "categories").items())
    if not categories:
        raise DatasetError(f"{file}: 'categories' is empty; list at least one class")
    names = Counter(category.name for _, category in categories)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise DatasetError(
            f"{file}: 'categories' holds two of the name {_shown(twice)}; rename or merge them"
        )
    labels = {category_id: label for label, (category_id, _) in enumerate(categories)}
    images = _by_id(tables.images, file, "images")
    _check_on_disk(tables.images, image_dir, file)

    objects: dict[int, list[Annotation]] = defaultdict(list)
    left_out: dict[str, list[int]] = defaultdict(list)
    for entry in _by_id(tables.annotations, file, "annotations").values():
        where = f"{file}: annotation {entry.id}"
        image, label = images.get(entry.image_id), labels.get(entry.category_id)
        if image is None:
            raise DatasetError(
                f"{where}: image_id {entry.image_id} is not among the ids in 'images' "
                f"({_shown(images)}); add that image or remove the annotation"
            )
        if label is None:
            raise DatasetError(
                f"{where}: category_id {entry.category_id} is not among the ids in 'categories' "
                f"({_shown(labels)}); add that category or remove the annotation"
            )
        try:
            annotation = _annotation(entry, image, label, left_out)
        except DatasetError as error:
            raise DatasetError(f"{where}: {error}") from error
        if annotation is not None:
            objects[image.id].append(annotation)
    if left_out:
        counts = (f"{len(ids)} {what} (id {_shown(ids)})" for what, ids in left_out.items())
        warnings.warn(f"{file}: left out {'; '.join(counts)}", stacklevel=2)
    return Split(
        name=split,
        annotation_file=file,
        classes=tuple(category.name for _, category in categories),
        category_ids=tuple(labels),
        records=tuple(
            ImageRecord(i.id, image_dir / i.file_name, i.height, i.width, tuple(objects[i.id]))
            for i in tables.images
        ),
        image_dir=image_dir,
    )


# What the file must look like; fields that are not named here are ignored.


class _Strict:
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, allow_inf_nan=False)


@dataclass(slots=True)
class _Category(_Strict):
    id: int
    name: Annotated[str, Field(min_length=1)]


@dataclass(slots=True)
class _Image(_Strict):
    id: int
    file_name: str
    height: Annotated[int, Field(gt=0)]
    width: Annotated[int, Field(gt=0)]


@dataclass(slots=True)
class _Object(_Strict):
    id: int
    image_id: int
    category_id: int
    segmentation: Annotated[
        Annotated[RLE, Tag("RLE")] | Annotated[list[list[float]], Tag("polygons")],
        Discriminator(lambda value: "RLE" if isinstance(value, dict) else "polygons"),
    ]
    bbox: tuple[float, float, float, float] | None = None  # x, y, width, height
    area: Annotated[float, Field(ge=0)] | None = None
    iscrowd: Literal[0, 1] = 0


@dataclass(slots=True)
class _Tables(_Strict):
    images: list[_Image]
    annotations: list[_Object]
    categories: list[_Category]


_Entry = TypeVar("_Entry", _Category, _Image, _Object)


def _read(file: Path) -> _Tables:
    content = file.read_bytes().removeprefix(b"\xef\xbb\xbf")  # a mark that some Windows tools add
    try:
        return TypeAdapter(_Tables).validate_json(content)
    except ValidationError as error:
        raise DatasetError(f"{file}: {_first_problem(error, content)}") from error


def _first_problem(error: ValidationError, content: bytes) -> str:
    first = error.errors(include_url=False)[0]
    message, place = first["msg"], first["loc"]
    if first["type"] == "json_invalid":
        return f"broken JSON ({message.partition(': ')[2]}); copy or export it again"
    if len(place) < 2:
        what = f"top-level '{place[0]}': {message}" if place else message
        return f"{what}; COCO files are an object with lists 'images', 'annotations', 'categories'"
    table, index, *field = place
    entry = json.loads(content)[table][index]
    known = isinstance(entry, dict) and "id" in entry
    name = f"{_SINGULAR[str(table)]} {entry['id']}" if known else f"{table}[{index}]"
    given = "" if first["type"] == "missing" else f", given {reprlib.repr(first['input'])}"
    return f"{name}: {'.'.join(map(str, field))}: {message}{given}; correct this entry"


def _by_id(entries: list[_Entry], file: Path, table: str) -> dict[int, _Entry]:
    by_id = {entry.id: entry for entry in entries}
    if len(by_id) < len(entries):
        counts = Counter(entry.id for entry in entries)
        double = [number for number, count in counts.items() if count > 1]
        raise DatasetError(
            f"{file}: {_SINGULAR[table]} id {_shown(double)} stands more than once in '{table}'; "
            "ids have to be unique: remove or renumber the others"
        )
    return by_id


def _check_on_disk(images: list[_Image], image_dir: Path, file: Path) -> None:
    there = set(_files_below(image_dir))
    missing = [
        image
        for image in images  # the second look finds linked folders
        if image.file_name not in there and not (image_dir / image.file_name).is_file()
    ]
    if missing:
        first, more = missing[0], len(missing) - 1
        others = f" (and {more} more)" if more else ""
        raise DatasetError(
            f"{file}: image {first.id} ({first.file_name}){others} is missing on disk; put it "
            f"into {image_dir}, or remove it from 'images' with its annotations"
        )


def _files_below(folder: Path | str, prefix: str = "") -> Iterator[str]:
    """Names relative to the first folder, with '/' as in COCO files."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files_below(entry.path, f"{prefix}{entry.name}/")
            elif entry.is_file():
                yield prefix + entry.name


def _annotation(
    entry: _Object, image: _Image, label: int, left_out: dict[str, list[int]]
) -> Annotation | None:
    """The checked object, or None after a note in `left_out`."""
    segmentation = checked(entry.segmentation, image.height, image.width)
    if not segmentation:
        short = isinstance(entry.segmentation, list) and entry.segmentation
        what = "with polygons of fewer than three points" if short else "with an empty segmentation"
        left_out[f"annotations {what}"].append(entry.id)
        return None
    bbox: Iterable[float] | None = entry.bbox
    if bbox is None:
        bbox = mask_utils.toBbox(compressed(segmentation, image.height, image.width)).tolist()
    x, y, width, height = bbox
    left, right = (min(max(value, 0.0), float(image.width)) for value in (x, x + width))
    top, bottom = (min(max(value, 0.0), float(image.height)) for value in (y, y + height))
    if right <= left or bottom <= top:
        left_out["annotations whose box has no area inside the picture"].append(entry.id)
        return None
    if len(segmentation) < len(entry.segmentation):
        left_out["annotations: single polygons of fewer than three points"].append(entry.id)
    area = entry.area
    if area is None:
        area = float(mask_utils.area(compressed(segmentation, image.height, image.width)))
    crowd = bool(entry.iscrowd)
    return Annotation(entry.id, (left, top, right, bottom), label, segmentation, crowd, area)


def _describe(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder} is no folder"
    names = sorted(f"{path.name}/" if path.is_dir() else path.name for path in folder.iterdir())
    return f"{folder} holds {_shown(names) or 'nothing'}"


def _shown(values: Iterable[int | str]) -> str:
    """The first few, and how many there are more."""
    texts = [str(value) for value in values]
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more
