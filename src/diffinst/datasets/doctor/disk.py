"""Do the entries fit the pictures on disk: there, readable, of that size, each one only once?"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from diffinst.datasets.doctor.entries import repeated
from diffinst.datasets.doctor.findings import Notebook, Place
from diffinst.datasets.doctor.locate import Folder, pictures_in
from diffinst.datasets.doctor.pictures import Facts, inspect_all
from diffinst.datasets.doctor.tables import Picture, Tables, is_number

FAINT = 8  # of 255: less contrast than this is as good as none
FAINT_16_BIT = 32  # a 12-bit camera's full range is 16 of 255 once read
LARGE_SIDE = 4000


def look(tables: Tables, notes: Notebook, progress: Callable[[int, int], None]) -> None:
    """Open every picture of a split, note what is wrong, and take its size where it is right."""
    found = list(_found(tables, notes))
    _merge_entries(found, tables, notes)
    by_path: dict[Path, list[Picture]] = defaultdict(list)
    for picture in found:
        by_path[picture.path].append(picture)
    total = len(by_path)
    for path, facts in inspect_all(list(by_path), lambda done: progress(done, total)):
        for picture in by_path[path]:
            if isinstance(facts, str):
                reason = facts.removeprefix(f"{path}: ")
                notes.add("unreadable-picture", tables.name, picture.place(reason))
                picture.kept = False
            else:
                picture.facts = facts
                _check_size(picture, facts, tables, notes)
                _check_traits(picture, facts, tables, notes)


def _found(tables: Tables, notes: Notebook) -> Iterator[Picture]:
    """The pictures that are there; where a name is only slightly wrong, the path is corrected."""
    folder = Folder(tables.files.images)
    for picture in tables.pictures:
        path, problem = folder.find(picture.file_name, picture.other_name)
        if problem:
            notes.add("missing-picture", tables.name, picture.place(problem))
        if path is None:
            picture.kept = False
        else:
            picture.path = path
            yield picture


def _merge_entries(found: Sequence[Picture], tables: Tables, notes: Notebook) -> None:
    """Entries of one file become one; where they disagree about its size, the first is."""
    kept = [picture for picture in found if picture.kept]
    for _, twins in repeated(kept, lambda picture: picture.path):
        ids = ", ".join(str(twin.id) for twin in twins)
        place = Place(None, twins[0].file_name, None, f"images {ids}")
        notes.add("duplicate-file-name", tables.name, place)
        for twin in twins[1:]:
            twin.kept = False
            twins[0].things += twin.things
            twin.things = []


def _check_size(picture: Picture, facts: Facts, tables: Tables, notes: Notebook) -> None:
    said, found = picture.size, facts.size
    if said is None or said == found:
        picture.size = found
        if facts.orientation != 1 and (not facts.sideways or found[0] == found[1]):
            notes.add("exif-rotation", tables.name, picture.place())
        return
    detail = f"it is {found[0]}x{found[1]} (height x width), its entry says {said[0]}x{said[1]}"
    if _made_for(picture, found):
        detail += ": its masks are of the picture's size"
        picture.size = found
    elif said[::-1] == found and facts.sideways:
        detail += ": its EXIF mark turns it, it was annotated unturned"
        picture.unrotated = True
    elif said[::-1] == found and _polygons_fit(picture, found):
        detail += ": height and width are swapped"
        picture.size = found
    else:
        picture.kept = False
    notes.add("wrong-size", tables.name, picture.place(detail))


def _made_for(picture: Picture, size: tuple[int, int]) -> bool:
    """Whether every object is given as run lengths of this size."""
    masks = [thing.segmentation for thing in picture.things]
    sizes = [mask.get("size") if isinstance(mask, dict) else None for mask in masks]
    return bool(sizes) and all(given == list(size) for given in sizes)


def _polygons_fit(picture: Picture, size: tuple[int, int]) -> bool:
    """Whether every object is given as polygons that lie inside a picture of this size."""
    for thing in picture.things:
        polygons = thing.segmentation
        if not isinstance(polygons, list):
            return False
        for polygon in polygons:
            if not isinstance(polygon, list) or not all(map(is_number, polygon)):
                return False
            if polygon and (max(polygon[::2]) > size[1] + 1 or max(polygon[1::2]) > size[0] + 1):
                return False
    return True


def _check_traits(picture: Picture, facts: Facts, tables: Tables, notes: Notebook) -> None:
    for trait in facts.traits:
        notes.add(trait, tables.name, picture.place())
    if facts.contrast < (FAINT_16_BIT if "16-bit" in facts.traits else FAINT):
        detail = f"its values span {facts.contrast} of 255"
        notes.add("faint-picture", tables.name, picture.place(detail))
    if max(facts.size) > LARGE_SIDE:
        detail = f"{facts.size[0]}x{facts.size[1]} (height x width)"
        notes.add("large-picture", tables.name, picture.place(detail))


def compare_pictures(splits: Sequence[Tables], notes: Notebook) -> None:
    """Note equal pictures, within a split and between "train" and the others."""
    for tables in splits:
        for _, twins in repeated(_seen(tables), _digest):
            names = ", ".join(twin.file_name for twin in twins[1:])
            best = max(twins, key=lambda twin: len(twin.kept_things))
            notes.add("duplicate-picture", tables.name, twins[0].place(f"the same as {names}"))
            for twin in twins:
                twin.kept = twin is best
    train = next((tables for tables in splits if tables.name == "train"), None)
    if train is None:
        return
    by_digest = {_digest(picture): picture for picture in _seen(train)}
    enough = len(train.kept) / 2  # where most of 'train' is elsewhere, too, that may be meant
    leaks = {
        tables.name: [(p, by_digest[_digest(p)]) for p in _seen(tables) if _digest(p) in by_digest]
        for tables in splits
        if tables is not train
    }
    shared = {id(original) for pairs in leaks.values() for _, original in pairs}
    for name, pairs in leaks.items():
        for picture, original in pairs:
            detail = f"the same as {original.file_name} in 'train'"
            repaired = len(shared) <= enough
            notes.add("leak", name, picture.place(detail), repaired=repaired)
            original.kept = not repaired


def _seen(tables: Tables) -> list[Picture]:
    return [picture for picture in tables.kept if picture.facts is not None]


def _digest(picture: Picture) -> bytes:
    assert picture.facts is not None
    return picture.facts.digest


def find_unnamed(splits: Sequence[Tables], notes: Notebook) -> None:
    """Note the pictures in the splits' folders that no split names (LVIS only names some)."""
    named = {os.path.normpath(picture.path) for tables in splits for picture in tables.pictures}
    done: set[Path] = set()
    by_depth = sorted(splits, key=lambda tables: len(tables.files.images.parts), reverse=True)
    for tables in by_depth:  # the deepest first: a folder inside another has its own split
        if tables.files.format == "lvis":
            continue
        for path in pictures_in(tables.files.images):
            if path not in done and os.path.normpath(path) not in named:
                name = path.relative_to(tables.files.images).as_posix()
                notes.add("unnamed-picture", tables.name, Place(file_name=name))
            done.add(path)
