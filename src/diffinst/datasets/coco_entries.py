"""What an entry of a COCO or LVIS file must look like; checks one, and tells what is wrong.

The classes below are read twice: by msgspec, which takes many sound entries at once
(`DECODERS`), and by pydantic, which names what is wrong with a single one.
"""

from __future__ import annotations

import json
import reprlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeGuard, TypeVar

import msgspec
from msgspec import Meta
from pydantic import ConfigDict, Discriminator, Field, Tag, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic refuses typing's before Python 3.12

from diffinst.datasets.problems import Place, Problems
from diffinst.io import images

SINGULAR = {"images": "image", "annotations": "annotation", "categories": "category"}
NO_ID = -(2**63)
"""The id of entries whose id cannot be told."""
LISTS_OF_CLASSES = ("neg_category_ids", "not_exhaustive_category_ids")  # LVIS, of an image
FREQUENCIES = ("r", "c", "f")  # LVIS: rare, common, frequent

_LARGEST, _LARGEST_SIDE = 2**63 - 1, 2**31 - 1
_Id = Annotated[int, Field(ge=-(2**63), lt=2**63), Meta(ge=-(2**63), le=_LARGEST)]
_Side = Annotated[int, Field(gt=0, lt=2**31), Meta(gt=0, le=_LARGEST_SIDE)]
_MOST_DIGITS = 20  # of an id, or one more
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
    name: str
    supercategory: str | None = None
    frequency: Literal["r", "c", "f"] | None = None  # LVIS


@dataclass(slots=True)
class Image(_Strict):
    """One image; its sides are 0 where they cannot be told."""

    id: _Id
    file_name: str
    height: _Side
    width: _Side
    coco_url: Any = None
    neg_category_ids: list[_Id] | None = None  # LVIS
    not_exhaustive_category_ids: list[_Id] | None = None  # LVIS

    @property
    def other(self) -> str:
        """Its folder and name in COCO's layout, if `coco_url` tells."""
        other = _last_two(self.coco_url)
        return self.file_name if other == self.file_name else other  # of two equal texts, one


class _RLE(TypedDict):
    size: list[int]
    counts: str | list[int]


@dataclass(slots=True)
class Object(_Strict):
    """One annotation."""

    id: _Id
    image_id: _Id
    category_id: _Id
    segmentation: Annotated[
        Annotated[_RLE, Tag("RLE")] | Annotated[list[list[float]], Tag("polygons")],
        Discriminator(lambda value: "RLE" if isinstance(value, dict) else "polygons"),
    ]
    bbox: tuple[float, float, float, float] | None = None  # x, y, width, height
    area: Annotated[float, Field(ge=0), Meta(ge=0)] | None = None
    iscrowd: Literal[0, 1] = 0


_Entry = TypeVar("_Entry", Category, Image, Object)
_CATEGORY, _IMAGE, _OBJECT = TypeAdapter(Category), TypeAdapter(Image), TypeAdapter(Object)
DECODERS: Mapping[str, msgspec.json.Decoder[Any]] = {
    "images": msgspec.json.Decoder(list[Image]),
    "annotations": msgspec.json.Decoder(list[Object]),
}
"""Of lists of sound entries."""


class Entries:
    """Checks the entries of one file; at the end, whether all ids are written alike.

    Ids as text ("42") are taken for numbers where the whole file writes them so. Of an entry that
    is not as it should be, what can be told nevertheless is returned (where `problems` does not
    refuse): "7" and 7.0 for 7, `NO_ID` for no id, 0 for no side, "" for no text, None for the rest.

    Args:
        problems: Gets what is wrong.
        masks: Segmentations are checked, too; otherwise they are whatever the file says.
    """

    def __init__(self, problems: Problems, *, masks: bool = True) -> None:
        self.problems, self.masks = problems, masks
        self._text: dict[tuple[str, str], tuple[str, object]] = {}  # the first entry with one
        self._numbers: set[tuple[str, str]] = set()

    def category(self, entry: object, position: int) -> Category:
        """A checked entry of 'categories'."""
        entry = self._numbered(entry, "categories", position, ("id",))
        category = self._checked(_CATEGORY, Category, entry, "categories", position)
        if not category.name.strip() and category.id != NO_ID:
            where = f"category {category.id}"
            self.problems.note("empty-class-name", where=where, given=repr(category.name))
            category.name = f"class {category.id}"
        return category

    def image(self, entry: object, position: int) -> Image:
        """A checked entry of 'images'."""
        if isinstance(entry, Image):
            self._numbers.add(("images", "id"))
            return self._bounded(entry)
        entry = self._numbered(entry, "images", position, ("id",))
        if isinstance(entry, dict) and entry.get("file_name") is None:
            other = _last_two(entry.get("coco_url"))  # LVIS v1 names images by nothing else
            entry = {**entry, "file_name": other} if other else entry
        return self._bounded(self._checked(_IMAGE, Image, entry, "images", position))

    def annotation(self, entry: object, position: int) -> Object:
        """A checked entry of 'annotations'."""
        if isinstance(entry, Object):
            self._numbers.update(_OBJECT_NUMBERS)
            return entry
        entry = self._numbered(entry, "annotations", position, _OBJECT_IDS)
        if self.masks or not isinstance(entry, dict):
            return self._checked(_OBJECT, Object, entry, "annotations", position)
        bare = {**entry, "segmentation": []}
        found = self._checked(_OBJECT, Object, bare, "annotations", position)
        found.segmentation = entry.get("segmentation")  # type: ignore[assignment]  # unchecked
        return found

    def finish(self) -> None:
        """Tell where some ids are text and those they refer to are numbers."""
        for linked in _REFERENCES:
            texts = [key for key in linked if key in self._text]
            if texts and any(key in self._numbers for key in linked):
                where, given = self._text[texts[0]]
                names = " and ".join(f"{field} in '{table}'" for table, field in linked)
                self.problems.note(
                    "mixed-ids",
                    where=where,
                    field=texts[0][1],
                    given=reprlib.repr(given),
                    linked=names,
                )

    def _bounded(self, image: Image) -> Image:
        """The image, its sides unknown where they are those of no image that can be read."""
        pixels = image.height * image.width
        if pixels > images.MAX_PIXELS:
            sides = f"height is {image.height}, width is {image.width}"
            self.problems.note(
                "image-entry",
                place_of(image.id, image.file_name),
                where=f"image {image.id}",
                problem=f"{sides}: {pixels} pixels",
                remedy=f"allowed are {images.MAX_PIXELS}: correct this entry",
                fields=sides,
            )
            image.height = image.width = 0
        return image

    def _numbered(self, entry: object, table: str, position: int, keys: tuple[str, ...]) -> object:
        """The entry with its ids as numbers, where they are text that says nothing else."""
        if not isinstance(entry, dict):
            return entry
        numbers: dict[str, int] = {}
        for key in keys:
            value = entry.get(key)
            written = value if type(value) is str and len(value) < _MOST_DIGITS else ""
            if written.isdecimal() and str(int(written)) == written:
                numbers[key] = int(written)
                self._text.setdefault((table, key), (_name(entry, table, position), value))
            else:
                self._numbers.add((table, key))
        return {**entry, **numbers} if numbers else entry

    def _checked(
        self,
        adapter: TypeAdapter[_Entry],
        kind: type[_Entry],
        entry: object,
        table: str,
        position: int,
    ) -> _Entry:
        known = entry
        if isinstance(entry, dict):
            known = {key: entry[key] for key in kind.__dataclass_fields__ if key in entry}
        try:
            return adapter.validate_json(json.dumps(known))
        except ValidationError as error:
            self._tell(error, entry, table, position)
        meant = known if isinstance(known, dict) else {}
        return kind(**{key: _MEANT[key](meant.get(key)) for key in kind.__dataclass_fields__})

    def _tell(self, error: ValidationError, entry: object, table: str, position: int) -> None:
        where = _name(entry, table, position)
        place = _place(entry, table)
        named = place.annotation_id if table == "annotations" else place.image_id
        texts: dict[str, list[str]] = {}  # of each code: the first problem, then all fields
        for one in error.errors(include_url=False):
            field = str(one["loc"][0]) if one["loc"] else ""
            code = f"{SINGULAR[table]}-entry" if field not in LISTS_OF_CLASSES else "lvis-classes"
            given = "" if one["type"] == "missing" else f", given {reprlib.repr(one['input'])}"
            path = ".".join(map(str, one["loc"]))
            texts.setdefault(code, [f"{path}: {one['msg']}{given}".removeprefix(": ")])
            value = entry.get(field) if isinstance(entry, dict) and field else entry
            absent = isinstance(entry, dict) and field and field not in entry
            text = f"{field} is missing" if absent else f"{field} is {reprlib.repr(value)}".strip()
            texts[code] += [] if text in texts[code] else [text]
        for code, (problem, *fields) in texts.items():
            self.problems.note(
                code,
                place,
                where=where,
                problem=problem,
                remedy="correct this entry",
                fields=("" if named is not None else f"{where}: ") + "; ".join(fields),
            )


def place_of(image_id: int, file_name: str = "", annotation_id: int = NO_ID) -> Place:
    """Where an entry is, with ids that may be `NO_ID`."""
    image, annotation = (None if one == NO_ID else one for one in (image_id, annotation_id))
    return Place(image, file_name, annotation)


def _place(entry: object, table: str) -> Place:
    if not isinstance(entry, dict) or table == "categories":
        return Place()
    if table == "images":
        return place_of(_id(entry.get("id")), _text(entry.get("file_name")))
    return place_of(_id(entry.get("image_id")), "", _id(entry.get("id")))


def _name(entry: object, table: str, position: int) -> str:
    named = isinstance(entry, dict) and "id" in entry
    number = str(entry["id"])[:_MOST_DIGITS] if named else ""  # type: ignore[index]
    return f"{SINGULAR[table]} {number}" if named else f"{table}[{position}]"


def _last_two(url: object) -> str:
    return "/".join(url.split("/")[-2:]) if isinstance(url, str) else ""


# What a value means, whatever is wrong with it.


def _whole(value: object, low: int, high: int, unknown: int) -> int:
    try:
        number = float(value) if isinstance(value, float | str) else value
    except ValueError:
        return unknown
    if isinstance(number, bool) or not isinstance(number, int | float) or number % 1:
        return unknown
    return int(number) if low <= number <= high else unknown  # NaN and infinity: neither


def _id(value: object) -> int:
    return _whole(value, -_LARGEST, _LARGEST, NO_ID)


def _side(value: object) -> int:
    return _whole(value, 1, _LARGEST_SIDE, 0)


def _text(value: object) -> str:
    """Numbers written out, halves of characters replaced."""
    known = isinstance(value, str | int | float)
    return str(value).encode("utf-8", "replace").decode() if known else ""


def _box(value: object) -> tuple[float, ...] | None:
    if isinstance(value, list) and len(value) == 4 and all(map(is_number, value)):
        return tuple(map(float, value))
    return None


def _area(value: object) -> float | None:
    return float(value) if is_number(value) and value >= 0 else None


def _flag(value: object) -> int:
    return int(value in (1, "1", "true", "True"))


def _ids(value: object) -> list[int] | None:
    return value if isinstance(value, list) and all(type(one) is int for one in value) else None


def _word(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _as_is(value: object) -> object:
    return value


_MEANT: Mapping[str, Callable[[object], Any]] = {
    **dict.fromkeys(_OBJECT_IDS, _id),
    **dict.fromkeys(("height", "width"), _side),
    **dict.fromkeys(("name", "file_name"), _text),
    **dict.fromkeys(LISTS_OF_CLASSES, _ids),
    **dict.fromkeys(("segmentation", "coco_url"), _as_is),
    **dict.fromkeys(("supercategory", "frequency"), _word),
    "bbox": _box,
    "area": _area,
    "iscrowd": _flag,
}


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a JSON value is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max  # False for NaN
