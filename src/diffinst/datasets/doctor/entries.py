"""Do the entries of a COCO or LVIS file make sense: fields, ids, references, names?"""

from __future__ import annotations

import reprlib
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import replace
from typing import TypeAlias, TypeVar

from diffinst.datasets.doctor.findings import Notebook
from diffinst.datasets.doctor.geometry import Box
from diffinst.datasets.doctor.tables import (
    LARGEST_SIDE,
    Entry,
    ImageEntry,
    Problems,
    Spelled,
    Tables,
    Thing,
    entries,
    read_json,
)
from diffinst.datasets.layouts import SplitFiles
from diffinst.datasets.problems import Place

_Item = TypeVar("_Item")
_Key = TypeVar("_Key", bound=Hashable)
_Named: TypeAlias = tuple[int, str, Entry]
_LISTS = ("images", "annotations", "categories")
FREQUENCIES = ("r", "c", "f")  # LVIS: rare, common, frequent
LISTS_OF_CLASSES = ("neg_category_ids", "not_exhaustive_category_ids")  # LVIS, of an image
_LINKED = (  # ids that are compared with each other
    (("images", "id"), ("annotations", "image_id")),
    (("categories", "id"), ("annotations", "category_id")),
    (("annotations", "id"),),
)


def read_tables(files: SplitFiles, notes: Notebook) -> Tables | None:
    """Read a COCO or LVIS file as far as it goes, noting whatever is wrong with its entries.

    Returns:
        Images with their annotations; None if the file is broken as a whole.
    """
    content = read_json(files, notes)
    if content is None:
        return None
    tables = Tables(files, extra={k: v for k, v in content.items() if k not in _LISTS})
    spelled: Spelled = {}
    _read_classes(tables, content, spelled, notes)
    tables.images = _read_images(tables, content, spelled, notes)
    _read_things(tables, content, spelled, notes)
    _check_spelling(tables, spelled, notes)
    return tables


def _read_classes(tables: Tables, content: Entry, spelled: Spelled, notes: Notebook) -> None:
    """Fill `classes`, and in `renumbered` those that are merged into another."""
    named: list[tuple[int, str, Entry]] = []
    for index, entry in entries(content, "categories"):
        problems = Problems(entry, "categories", spelled)
        number, name = problems.id("id"), problems.text("name")
        problems.one_of("supercategory", str)
        problems.one_of("frequency", str, FREQUENCIES)
        if problems.texts:
            where = f"categories[{index}]" if number is None else f"category {number}"
            notes.add("category-entry", tables.name, Place(detail=f"{where}: {problems}"))
        if number is not None:
            named.append((number, name or "", entry))
    named = _without_root(named, content)
    for number, twins in repeated(named, lambda one: one[0]):
        names = [name for _, name, _ in twins]
        place = Place(detail=f"category {number}: {', '.join(map(repr, names))}")
        repaired = len(set(names)) == 1
        notes.add("duplicate-category-id", tables.name, place, repaired=repaired)
    for number, name, entry in sorted(named, key=lambda one: one[0]):
        if number in tables.classes:
            continue
        if not name.strip():
            notes.add("empty-class-name", tables.name, Place(detail=f"category {number}"))
        tables.classes[number] = name if name.strip() else f"class {number}"
        tables.class_entries[number] = entry
    tables.renumbered = {number: number for number in tables.classes}
    for name, ids in repeated(tables.classes, tables.classes.__getitem__):
        detail = f"'{name}': categories {', '.join(map(str, ids))}"
        notes.add("duplicate-class-name", tables.name, Place(detail=detail))
        for number in ids[1:]:
            tables.renumbered[number] = ids[0]
            del tables.classes[number], tables.class_entries[number]
    for _, ids in repeated(tables.classes, lambda i: " ".join(tables.classes[i].lower().split())):
        names = [f"'{tables.classes[number]}'" for number in ids]
        notes.add("similar-class-names", tables.name, Place(detail=", ".join(names)))


def _without_root(named: list[_Named], content: Entry) -> list[_Named]:
    """Without the unused class 0 that Roboflow puts above the others, as the reader does."""
    parents = {str(entry.get("supercategory")) for number, _, entry in named if number != 0}
    used = any(entry.get("category_id") in (0, "0") for _, entry in entries(content, "annotations"))
    return [
        (number, name, entry)
        for number, name, entry in named
        if used or number != 0 or entry.get("supercategory") != "none" or name not in parents
    ]


def _read_images(
    tables: Tables, content: Entry, spelled: Spelled, notes: Notebook
) -> list[ImageEntry]:
    images: list[ImageEntry] = []
    for index, entry in entries(content, "images"):
        problems = Problems(entry, "images", spelled)
        number = problems.id("id")
        url = entry.get("coco_url")
        address = "/".join(url.split("/")[-2:]) if isinstance(url, str) else ""
        named = not address or entry.get("file_name") is not None  # LVIS v1 has addresses only
        file_name = problems.text("file_name") if named else address
        height = problems.whole("height", 1, LARGEST_SIDE)
        width = problems.whole("width", 1, LARGEST_SIDE)
        if problems.texts:
            place = Place(number, file_name or f"images[{index}]", None, str(problems))
            notes.add("image-entry", tables.name, place)
        if number is None or not file_name:
            continue
        size = (height, width) if height is not None and width is not None else None
        path = tables.files.images / file_name
        image = ImageEntry(number, file_name, size, path, entry, other_name=address)
        images.append(image)
        for key in LISTS_OF_CLASSES:
            listed = entry.get(key)
            known = known_classes(listed, tables.renumbered)
            if listed is not None and listed != known:
                detail = f"{key}: {reprlib.repr(listed)}"
                notes.add("lvis-classes", tables.name, image.place(detail))
    for number, twins in repeated(images, lambda image: image.id):
        names = [twin.file_name for twin in twins]
        place = Place(number, names[0], None, f"stands for {', '.join(names)}")
        notes.add("duplicate-image-id", tables.name, place)
        same = len(set(names)) == 1
        for twin in twins[1:] if same else twins:
            twin.kept = False
    return images


def known_classes(listed: object, renumbered: Mapping[int, int]) -> list[int]:
    """What of a list are ids of classes."""
    if not isinstance(listed, list):
        return []
    return [i for i in listed if type(i) is int and i in renumbered]


def _read_things(tables: Tables, content: Entry, spelled: Spelled, notes: Notebook) -> None:
    owners: dict[int, ImageEntry] = {}
    for image in tables.images:
        owners.setdefault(image.id, image)
    places: dict[int, list[Place]] = defaultdict(list)
    for index, entry in entries(content, "annotations"):
        problems = Problems(entry, "annotations", spelled)
        number = problems.id("id")
        image_id, category_id = problems.id("image_id"), problems.id("category_id")
        box = _xyxy(problems.numbers("bbox", 4))
        area, crowd = problems.number("area"), problems.flag("iscrowd")
        owner = None if image_id is None else owners.get(image_id)
        place = Place(image_id, owner.file_name if owner else "", number)
        if number is not None:
            places[number].append(place)
        if problems.texts:
            where = f"annotations[{index}]: " if number is None else ""
            notes.add("annotation-entry", tables.name, replace(place, detail=f"{where}{problems}"))
        if owner is None and image_id is not None:
            notes.add("unknown-image", tables.name, place)
        if category_id is not None and category_id not in tables.renumbered:
            detail = f"category_id {category_id}"
            notes.add("unknown-category", tables.name, replace(place, detail=detail))
        if owner is None or category_id is None:
            continue
        thing = Thing(
            id=number,
            category_id=tables.renumbered.get(category_id, category_id),
            segmentation=entry.get("segmentation"),
            box=box,
            area=area,
            crowd=crowd,
            entry=entry,
            drawn=box,
            kept=category_id in tables.renumbered,
        )
        owner.things.append(thing)
    for twins in places.values():
        for place in twins[1:]:
            notes.add("duplicate-annotation-id", tables.name, place)


def _check_spelling(tables: Tables, spelled: Spelled, notes: Notebook) -> None:
    """Ids may be text, but then all that are compared have to be."""
    for linked in _LINKED:
        ways = {how for key in linked for how in spelled.get(key, ())}
        if len(ways) > 1:
            names = " and ".join(f"{field} in '{table}'" for table, field in linked)
            notes.add("mixed-ids", tables.name, Place(detail=names))


def _xyxy(box: tuple[float, ...] | None) -> Box | None:
    if box is None:
        return None
    x, y, width, height = box
    return x, y, x + width, y + height


def repeated(
    items: Iterable[_Item], key: Callable[[_Item], _Key]
) -> list[tuple[_Key, list[_Item]]]:
    """The groups of two or more with an equal key."""
    groups: dict[_Key, list[_Item]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return [(value, group) for value, group in groups.items() if len(group) > 1]


def compare_classes(splits: list[Tables], notes: Notebook) -> None:
    """Note where a split's classes are not those of "train", and which have no objects."""
    used = {tables.name: Counter(_used(tables)) for tables in splits}
    train = next((tables for tables in splits if tables.name == "train"), None)
    for tables in splits:
        if train is None or tables is train:
            continue
        ids = {name: number for number, name in train.classes.items()}
        for number, name in tables.classes.items():
            if name not in ids:
                detail = f"'{name}' is not in 'train'"
                notes.add("classes-differ", tables.name, Place(detail=detail))
            elif ids[name] != number:
                detail = f"'{name}' has id {number}, in 'train' {ids[name]}"
                notes.add("category-ids-differ", tables.name, Place(detail=detail))
            if used[tables.name][name] and not used["train"][name]:
                count = used[tables.name][name]
                detail = f"'{name}': {count} object{'s' * (count != 1)}"
                notes.add("class-not-in-train", tables.name, Place(detail=detail))
        for name in ids.keys() - set(tables.classes.values()):
            notes.add("classes-differ", tables.name, Place(detail=f"'{name}' is missing here"))
    everywhere = sum(used.values(), Counter())
    for name in {name: None for tables in splits for name in tables.classes.values()}:
        if not everywhere[name]:
            notes.add("unused-class", "", Place(detail=f"'{name}'"))


def _used(tables: Tables) -> list[str]:
    return [
        tables.classes[thing.category_id] for image in tables.kept for thing in image.kept_things
    ]


def unite_classes(splits: list[Tables]) -> None:
    """Give all splits the same classes: ids of the first split that has a class, if still free."""
    numbers: dict[str, int] = {}
    described: dict[str, Entry] = {}
    for tables in splits:
        for number, name in tables.classes.items():
            if name not in numbers:
                taken = set(numbers.values())
                numbers[name] = number if number not in taken else max(taken) + 1
                described[name] = tables.class_entries[number]
    for tables in splits:
        new = {number: numbers[name] for number, name in tables.classes.items()}
        tables.renumbered = {old: new[i] for old, i in tables.renumbered.items()}
        for image in tables.images:
            for thing in image.things:
                thing.category_id = new.get(thing.category_id, thing.category_id)
        ordered = sorted(numbers.items(), key=lambda item: item[1])
        tables.classes = {number: name for name, number in ordered}
        tables.class_entries = {number: described[name] for name, number in ordered}
