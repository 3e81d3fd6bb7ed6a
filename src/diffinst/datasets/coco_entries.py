"""What must an entry of a COCO or LVIS file look like? Checks one, and names what is wrong."""

from __future__ import annotations

import json
import math
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeGuard, TypeVar

from pydantic import ConfigDict, Discriminator, Field, Tag, TypeAdapter, ValidationError

from diffinst.datasets.problems import DatasetError
from diffinst.datasets.segmentation import RLE

SINGULAR = {"images": "image", "annotations": "annotation", "categories": "category"}

_Id = Annotated[int, Field(ge=-(2**63), lt=2**63)]
_Side = Annotated[int, Field(gt=0, lt=2**31)]
_NUMBERS = {int, float}
_OBJECT_IDS = ("id", "image_id", "category_id")
_OBJECT_NUMBERS = frozenset(("annotations", key) for key in _OBJECT_IDS)
_REFERENCES = (  # what has to be written alike, as numbers or as text
    (("images", "id"), ("annotations", "image_id")),
    (("categories", "id"), ("annotations", "category_id")),
    (("annotations", "id"),),
)


class _Strict:
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, allow_inf_nan=False)


# Fields that are not named here are ignored.


@dataclass(slots=True)
class Category(_Strict):
    """One class."""

    id: _Id
    name: Annotated[str, Field(min_length=1)]
    supercategory: str | None = None
    frequency: Literal["r", "c", "f"] | None = None  # LVIS


@dataclass(slots=True)
class Image(_Strict):
    """One image; `other` is its folder and name in COCO's layout, if `coco_url` tells."""

    id: _Id
    file_name: str
    height: _Side
    width: _Side
    other: str = ""
    neg_category_ids: list[_Id] | None = None  # LVIS
    not_exhaustive_category_ids: list[_Id] | None = None  # LVIS


@dataclass(slots=True)
class Object(_Strict):
    """One annotation."""

    id: _Id
    image_id: _Id
    category_id: _Id
    segmentation: Annotated[
        Annotated[RLE, Tag("RLE")] | Annotated[list[list[float]], Tag("polygons")],
        Discriminator(lambda value: "RLE" if isinstance(value, dict) else "polygons"),
    ]
    bbox: tuple[float, float, float, float] | None = None  # x, y, width, height
    area: Annotated[float, Field(ge=0)] | None = None
    iscrowd: Literal[0, 1] = 0


_Entry = TypeVar("_Entry")
_CATEGORY, _IMAGE, _OBJECT = TypeAdapter(Category), TypeAdapter(Image), TypeAdapter(Object)


class Entries:
    """Checks the entries of one file; at the end, whether all ids are written alike.

    Ids as text ("42") are taken for numbers where the whole file writes them so.

    Args:
        file: Named in errors.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._text: dict[tuple[str, str], tuple[int, object]] = {}  # the first entry with one
        self._numbers: set[tuple[str, str]] = set()

    def category(self, entry: object, position: int) -> Category:
        """A checked entry of 'categories'."""
        entry = self._numbered(entry, "categories", position, ("id",))
        return self._checked(_CATEGORY, entry, "categories", position)

    def image(self, entry: object, position: int) -> Image:
        """A checked entry of 'images'."""
        entry = self._numbered(entry, "images", position, ("id",))
        if isinstance(entry, dict):
            url = entry.get("coco_url")
            other = "/".join(url.split("/")[-2:]) if isinstance(url, str) else ""
            named = entry.get("file_name") is not None
            if other:  # LVIS v1 names images by nothing else
                entry = {**entry, "other": other} if named else {**entry, "file_name": other}
        if _is_sound_image(entry):
            other = entry.get("other", "")
            return Image(entry["id"], entry["file_name"], entry["height"], entry["width"], other)
        return self._checked(_IMAGE, entry, "images", position)

    def annotation(self, entry: object, position: int) -> Object:
        """A checked entry of 'annotations'."""
        if _is_sound(entry):
            self._numbers.update(_OBJECT_NUMBERS)
        else:
            entry = self._numbered(entry, "annotations", position, _OBJECT_IDS)
        if not _is_sound(entry):
            return self._checked(_OBJECT, entry, "annotations", position)
        return Object(
            entry["id"],
            entry["image_id"],
            entry["category_id"],
            entry["segmentation"],
            entry.get("bbox"),
            entry.get("area"),
            entry.get("iscrowd", 0),
        )

    def finish(self) -> None:
        """Refuse files that write some ids as text and those they refer to as numbers.

        Raises:
            DatasetError: Names the first such entry.
        """
        for linked in _REFERENCES:
            texts = [key for key in linked if key in self._text]
            if texts and any(key in self._numbers for key in linked):
                table, _ = texts[0]
                position, entry = self._text[texts[0]]
                match table:
                    case "images":
                        self._checked(_IMAGE, entry, table, position)
                    case "annotations":
                        self._checked(_OBJECT, entry, table, position)
                    case _:
                        self._checked(_CATEGORY, entry, table, position)

    def _numbered(self, entry: object, table: str, position: int, keys: tuple[str, ...]) -> object:
        """The entry with its ids as numbers, where they are text that says nothing else."""
        if not isinstance(entry, dict):
            return entry
        numbers: dict[str, int] = {}
        for key in keys:
            value = entry.get(key)
            if type(value) is str and value.isdecimal() and str(int(value)) == value:
                numbers[key] = int(value)
                self._text.setdefault((table, key), (position, entry))
            else:
                self._numbers.add((table, key))
        return {**entry, **numbers} if numbers else entry

    def _checked(
        self, adapter: TypeAdapter[_Entry], entry: object, table: str, position: int
    ) -> _Entry:
        try:
            return adapter.validate_json(json.dumps(entry))
        except ValidationError as error:
            raise DatasetError(f"{self.file}: {_problem(error, entry, table, position)}") from error


def _problem(error: ValidationError, entry: object, table: str, position: int) -> str:
    first = error.errors(include_url=False)[0]
    name = f"{table}[{position}]"
    if isinstance(entry, dict) and "id" in entry:
        name = f"{SINGULAR[table]} {entry['id']}"
    field = "".join(f"{part}." for part in first["loc"])[:-1]
    given = "" if first["type"] == "missing" else f", given {reprlib.repr(first['input'])}"
    where = f"{name}: {field}" if field else name
    return f"{where}: {first['msg']}{given}; correct this entry"


def _is_sound_image(entry: object) -> TypeGuard[dict[str, Any]]:
    """As below, for images; LVIS's fields and text that is not ASCII take a closer look."""
    if not isinstance(entry, dict):
        return False
    name, listed = entry.get("file_name"), ("neg_category_ids", "not_exhaustive_category_ids")
    return (
        _is_id(entry.get("id"))
        and _is_side(entry.get("height"))
        and _is_side(entry.get("width"))
        and type(name) is str
        and name.isascii()
        and entry.keys().isdisjoint(listed)
    )


def _is_sound(entry: object) -> TypeGuard[dict[str, Any]]:
    """Whether an annotation is as it should be; if not, it may still be (text with accents)."""
    if not isinstance(entry, dict):
        return False
    area, box = entry.get("area"), entry.get("bbox")
    segmentation = entry.get("segmentation")
    return (
        _is_id(entry.get("id"))
        and _is_id(entry.get("image_id"))
        and _is_id(entry.get("category_id"))
        and entry.get("iscrowd", 0) in (0, 1)
        and type(entry.get("iscrowd", 0)) is int
        and (area is None or (_finite([area]) and area >= 0))
        and (box is None or (_finite(box) and len(box) == 4))
        and (
            all(map(_finite, segmentation)) if type(segmentation) is list else _is_rle(segmentation)
        )
    )


def _is_id(value: object) -> bool:
    return isinstance(value, int) and type(value) is int and abs(value) < 2**63


def _is_side(value: object) -> bool:
    return isinstance(value, int) and type(value) is int and 0 < value < 2**31


def _finite(values: object) -> bool:
    """Whether it is a list of finite numbers."""
    try:
        return (type(values) is list and _NUMBERS.issuperset(map(type, values))) and math.isfinite(
            sum(values)
        )
    except OverflowError:  # an integer that no float can hold
        return False


def _is_rle(value: object) -> bool:
    if type(value) is not dict or not {"size", "counts"} <= value.keys():
        return False
    size, counts = value["size"], value["counts"]
    return (
        type(size) is list
        and {int}.issuperset(map(type, size))
        and (
            {int}.issuperset(map(type, counts))
            if type(counts) is list
            else type(counts) is str and counts.isascii()
        )
    )
