"""Checks entries against the images on disk: there, readable, of that size, each only once."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from diffinst.datasets.coco_entries import is_number
from diffinst.datasets.doctor.images import Facts, inspect_all
from diffinst.datasets.doctor.tables import ImageEntry, Tables
from diffinst.datasets.images import Folder
from diffinst.datasets.problems import Place, repeated
from diffinst.io.images import ImageReadError, list_images

FAINT = 8  # of 255: less contrast than this is as good as none
LARGE_SIDE = 4000


def look(tables: Tables, progress: Callable[[int, int], None]) -> None:
    """Open every image of a split, note what is wrong, and take its size where it is right."""
    found = list(_found(tables))
    _merge_entries(found, tables)
    by_path: dict[Path, list[ImageEntry]] = defaultdict(list)
    for image in found:
        by_path[image.path].append(image)
    total = len(by_path)
    for path, facts in inspect_all(list(by_path), lambda done: progress(done, total)):
        for image in by_path[path]:
            if isinstance(facts, str):
                reason = facts.removeprefix(f"{path}: ")
                tables.notes.note("unreadable-image", image.place(reason))
                image.kept = False
            else:
                image.facts = facts
                _check_size(image, facts, tables)
                _check_traits(image, facts, tables)


def _found(tables: Tables) -> Iterator[ImageEntry]:
    """The images that are there; where a name is only slightly wrong, the path is corrected."""
    folder = Folder(tables.files.images)
    for image in tables.images:
        path, problem = find(folder, image.file_name, image.other_name)
        if problem:
            tables.notes.note("missing-image", image.place(problem))
        if path is None:
            image.kept = False
        else:
            image.path = path
            yield image


def find(folder: Folder, name: str, other: str) -> tuple[Path | None, str]:
    """Look for an image by its name, or by the other name that it may have.

    Returns:
        The file, or None; and what is wrong with the name: empty where training's reader finds it,
        too.
    """
    places = folder.find(name, other)
    if len(places) == 1:
        return folder.root / places[0], ""
    places = places or folder.near(name)
    if len(places) == 1:
        return folder.root / places[0], f"but {places[0]} is there"
    if places:
        return None, f"it may be {', '.join(places[:3])}"
    unreadable = folder.unreadable.partition(": ")[0]
    where = "leads out of" if name and folder.leads_out(name) else "not in"
    return None, f"{unreadable} may not be read" if unreadable else f"{where} {folder.root}"


def images_in(folder: Path) -> list[Path]:
    """The image files below a folder, possibly none."""
    try:
        return list_images([folder])
    except ImageReadError:  # there are none, or it may not be read: the entries will tell
        return []


def _merge_entries(found: Sequence[ImageEntry], tables: Tables) -> None:
    """Entries of one file become one; where they disagree about its size, the first is."""
    kept = [image for image in found if image.kept]
    for _, twins in repeated(kept, lambda image: image.path):
        ids = ", ".join(str(twin.id) for twin in twins)
        place = Place(None, twins[0].file_name, None, f"images {ids}")
        tables.notes.note("duplicate-file-name", place)
        for twin in twins[1:]:
            twin.kept = False
            twins[0].things += twin.things
            twin.things = []


def _check_size(image: ImageEntry, facts: Facts, tables: Tables) -> None:
    said, found = image.size, facts.size
    if said is None or said == found:
        image.size = found
        if facts.orientation != 1 and (not facts.sideways or found[0] == found[1]):
            tables.notes.note("exif-rotation", image.place())
        return
    detail = f"it is {found[0]}x{found[1]} (height x width), its entry says {said[0]}x{said[1]}"
    if _made_for(image, found):
        detail += ": its masks are of the image's size"
        image.size = found
    elif said[::-1] == found and facts.sideways:
        detail += ": its EXIF mark turns it, it was annotated unturned"
        image.unrotated = True
    elif said[::-1] == found and _polygons_fit(image, found):
        detail += ": height and width are swapped"
        image.size = found
    else:
        image.kept = False
    tables.notes.note("wrong-size", image.place(detail))


def _made_for(image: ImageEntry, size: tuple[int, int]) -> bool:
    """Whether every object is given as run lengths of this size."""
    masks = [thing.segmentation for thing in image.things]
    sizes = [mask.get("size") if isinstance(mask, dict) else None for mask in masks]
    return bool(sizes) and all(given == list(size) for given in sizes)


def _polygons_fit(image: ImageEntry, size: tuple[int, int]) -> bool:
    """Whether every object is given as polygons that lie inside an image of this size."""
    for thing in image.things:
        polygons = thing.segmentation
        if not isinstance(polygons, list):
            return False
        for polygon in polygons:
            if not isinstance(polygon, list) or not all(map(is_number, polygon)):
                return False
            if polygon and (max(polygon[::2]) > size[1] + 1 or max(polygon[1::2]) > size[0] + 1):
                return False
    return True


def _check_traits(image: ImageEntry, facts: Facts, tables: Tables) -> None:
    for trait in facts.traits:
        tables.notes.note(trait, image.place())
    if facts.contrast < FAINT:
        detail = f"its values span {facts.contrast} of 255"
        tables.notes.note("faint-image", image.place(detail))
    if max(facts.size) > LARGE_SIDE:
        detail = f"{facts.size[0]}x{facts.size[1]} (height x width)"
        tables.notes.note("large-image", image.place(detail))


def compare_images(splits: Sequence[Tables]) -> None:
    """Note equal images, within a split and between "train" and the others."""
    for tables in splits:
        for _, twins in repeated(_seen(tables), _digest):
            names = ", ".join(twin.file_name for twin in twins[1:])
            best = max(twins, key=lambda twin: len(twin.kept_things))
            tables.notes.note("duplicate-image", twins[0].place(f"the same as {names}"))
            for twin in twins:
                twin.kept = twin is best
    train = next((tables for tables in splits if tables.name == "train"), None)
    if train is None:
        return
    by_digest = {_digest(image): image for image in _seen(train)}
    enough = len(train.kept) / 2  # where most of 'train' is elsewhere, too, that may be meant
    leaks = [
        (tables, image, by_digest[_digest(image)])
        for tables in splits
        if tables is not train
        for image in _seen(tables)
        if _digest(image) in by_digest
    ]
    repaired = len({id(original) for *_, original in leaks}) <= enough
    for tables, image, original in leaks:
        detail = f"the same as {original.file_name} in 'train'"
        tables.notes.note("leak", image.place(detail), repaired=repaired)
        original.kept = not repaired


def _seen(tables: Tables) -> list[ImageEntry]:
    return [image for image in tables.kept if image.facts is not None]


def _digest(image: ImageEntry) -> bytes:
    assert image.facts is not None
    return image.facts.digest


def find_unnamed(splits: Sequence[Tables]) -> None:
    """Note the images in the splits' folders that no split names (LVIS only names some)."""
    named = {os.path.normpath(image.path) for tables in splits for image in tables.images}
    done: set[Path] = set()
    by_depth = sorted(splits, key=lambda tables: len(tables.files.images.parts), reverse=True)
    for tables in by_depth:  # the deepest first: a folder inside another has its own split
        if tables.files.format == "lvis":
            continue
        for path in images_in(tables.files.images):
            if path not in done and os.path.normpath(path) not in named:
                name = path.relative_to(tables.files.images).as_posix()
                tables.notes.note("unnamed-image", Place(file_name=name))
            done.add(path)
