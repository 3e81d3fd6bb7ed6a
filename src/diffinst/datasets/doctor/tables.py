"""What does an annotation file say, as far as it can be understood at all?

The strict readers stop at the first defect. Here every entry is taken as it comes: what is wrong
with it is noted, what can be told is corrected, and the rest is marked as not kept. So, once all
checks have run, what is still marked as kept is the repaired dataset.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, TypeGuard

from diffinst.datasets.doctor.findings import Notebook
from diffinst.datasets.doctor.geometry import Box
from diffinst.datasets.doctor.images import Facts
from diffinst.datasets.layouts import SplitFiles
from diffinst.datasets.problems import Place
from diffinst.datasets.segmentation import RLE

Entry: TypeAlias = dict[str, object]
LARGEST = 2**63 - 1  # of ids
LARGEST_SIDE = 2**31 - 1


@dataclass(slots=True, eq=False)
class Thing:
    """One annotation.

    Attributes:
        id: As in the file; None: there is none.
        category_id: As in the file.
        segmentation: As in the file, until `objects.inspect` puts it right.
        box: xyxy pixels as the file says; None: not given, or put aside to be measured anew.
        area: As the file says; None likewise.
        crowd: A group under one mask.
        entry: All that the file says.
        drawn: What was found first, for images of it: the box as the file says, xyxy.
        mask: Of the image's size, once drawn.
        kept: Whether it is part of the repaired dataset.
        where: File and line, where there are no ids.
    """

    id: int | None
    category_id: int
    segmentation: object
    box: Box | None
    area: float | None
    crowd: bool
    entry: Entry
    drawn: Box | None = None
    mask: RLE | None = None
    kept: bool = True
    where: str = ""


@dataclass(slots=True, eq=False)
class ImageEntry:
    """One entry of 'images' with its annotations.

    Attributes:
        id: As in the file.
        file_name: As in the file.
        size: (height, width) as in the file, until the image itself is asked.
        path: Where the image is.
        entry: All that the file says.
        other_name: Folder and file of its address, which may be where it is (LVIS).
        things: Its annotations.
        facts: What the file on disk is; None: missing or unreadable.
        unrotated: Written without its EXIF mark by the repair.
        kept: Whether it is part of the repaired dataset.
    """

    id: int
    file_name: str
    size: tuple[int, int] | None
    path: Path
    entry: Entry
    other_name: str = ""
    things: list[Thing] = field(default_factory=list)
    facts: Facts | None = None
    unrotated: bool = False
    kept: bool = True

    def place(self, detail: str = "") -> Place:
        """For findings about the image."""
        return Place(self.id, self.file_name, None, detail)

    def place_of(self, thing: Thing, detail: str = "") -> Place:
        """For findings about one of its annotations."""
        text = ": ".join(part for part in (thing.where, detail) if part)
        return Place(self.id, self.file_name, thing.id, text)

    @property
    def kept_things(self) -> list[Thing]:
        """The annotations that are part of the repaired dataset."""
        return [thing for thing in self.things if thing.kept]


@dataclass(slots=True, eq=False)
class Tables:
    """One split.

    Attributes:
        files: Where it comes from.
        images: In the order of the file.
        classes: Name by category id, ascending.
        class_entries: All that the file says, by category id.
        extra: The other keys of the file ("info", "licenses", ...).
        renumbered: What became of the file's class ids; those that are gone are not in it.
    """

    files: SplitFiles
    images: list[ImageEntry] = field(default_factory=list)
    classes: dict[int, str] = field(default_factory=dict)
    class_entries: dict[int, Entry] = field(default_factory=dict)
    extra: Entry = field(default_factory=dict)
    renumbered: dict[int, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the split."""
        return self.files.name

    @property
    def kept(self) -> list[ImageEntry]:
        """The images that are part of the repaired dataset."""
        return [image for image in self.images if image.kept]


def read_json(files: SplitFiles, notes: Notebook) -> Entry | None:
    """The top level of a COCO or LVIS file with its three lists; None (and a note) if hopeless."""
    name = str(files.annotations)

    def note(code: str, detail: str) -> None:
        notes.add(code, files.name, Place(None, name, None, detail))

    try:
        content = json.loads(files.annotations.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        note("broken-file", f"cannot be opened ({error.strerror})")
        return None
    except UnicodeDecodeError as error:
        note("broken-file", f"is not UTF-8 text ({error})")
        return None
    except (ValueError, RecursionError) as error:
        note("broken-file", f"is broken JSON ({error})")
        return None
    if not isinstance(content, dict):
        note("missing-table", f"holds a {type(content).__name__} instead of an object")
        return None
    if "image_info" in files.annotations.name:  # COCO's test images, without annotations
        content.setdefault("annotations", [])
    usable = True
    for table in ("images", "annotations", "categories"):
        listed = content.get(table)
        if not isinstance(listed, list) or (table == "categories" and not listed):
            note("missing-table", f"'{table}' is " + ("empty" if listed == [] else "missing"))
            usable = False
    return content if usable else None


def entries(content: Mapping[str, object], table: str) -> Iterator[tuple[int, Entry]]:
    """The entries of a list with their positions; an empty one in place of what is no object."""
    listed = content[table]
    assert isinstance(listed, list)
    for index, entry in enumerate(listed):
        yield index, entry if isinstance(entry, dict) else {}


Spelled: TypeAlias = dict[tuple[str, str], set[str]]
"""Whether ids are written as "text" or as "number", by list and field."""


class Problems:
    """What is wrong with one entry, and what its values mean nevertheless.

    Args:
        entry: Of the file.
        table: The list it stands in.
        spelled: Gets how its ids are written.
    """

    def __init__(self, entry: Entry, table: str, spelled: Spelled) -> None:
        self.entry = entry
        self.table = table
        self.spelled = spelled
        self.texts: list[str] = []

    def id(self, field_name: str) -> int | None:
        """A whole number, or text that says nothing else: fine as long as all are written so."""
        value = self.entry.get(field_name)
        as_text = isinstance(value, str) and value.isdecimal() and str(int(value)) == value
        how = self.spelled.setdefault((self.table, field_name), set())
        how.add("text" if as_text else "number")
        return int(str(value)) if as_text else self.whole(field_name, -LARGEST, LARGEST)

    def whole(self, field_name: str, low: int, high: int) -> int | None:
        """A whole number; "7" and 7.0 are noted and taken as 7."""
        value = self.entry.get(field_name)
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        self._wrong(field_name)
        try:
            number = float(value) if isinstance(value, float | str) else math.nan
        except ValueError:
            return None
        return int(number) if number.is_integer() and low <= number <= high else None

    def text(self, field_name: str) -> str | None:
        """A text; numbers are noted and written out, halves of characters noted and replaced."""
        value = self.entry.get(field_name)
        sound = str(value).encode("utf-8", "replace").decode()
        if value != sound:
            self._wrong(field_name)
        return sound if isinstance(value, str | int | float) else None

    def numbers(self, field_name: str, count: int) -> tuple[float, ...] | None:
        """So many finite numbers, or None where the field is missing, null or (noted) wrong."""
        value = self.entry.get(field_name)
        if value is None:
            return None
        if isinstance(value, list) and len(value) == count and all(map(is_number, value)):
            return tuple(float(number) for number in value)
        self._wrong(field_name)
        return None

    def one_of(self, field_name: str, kind: type, allowed: Collection[object] = ()) -> None:
        """Note what is neither missing nor null nor of the type (and one of the values)."""
        value = self.entry.get(field_name)
        if value is not None and not (
            isinstance(value, kind) and (not allowed or value in allowed)
        ):
            self._wrong(field_name)

    def number(self, field_name: str) -> float | None:
        """A finite number from 0, or None where the field is missing, null or (noted) wrong."""
        value = self.entry.get(field_name)
        if value is None or (is_number(value) and value >= 0):
            return None if value is None else float(value)
        self._wrong(field_name)
        return None

    def flag(self, field_name: str) -> bool:
        """0 or 1 (or false or true), by default 0; what else means yes or no is noted."""
        value = self.entry.get(field_name, 0)
        if isinstance(value, int) and value in (0, 1):
            return bool(value)
        self._wrong(field_name)
        return value in ("1", "true", "True")

    def _wrong(self, field_name: str) -> None:
        given = self.entry.get(field_name)
        text = f"is {reprlib.repr(given)}" if field_name in self.entry else "is missing"
        self.texts.append(f"{field_name} {text}")

    def __str__(self) -> str:
        return "; ".join(self.texts)


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a JSON value is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value)
