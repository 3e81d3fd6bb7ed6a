"""Writes what could be put right as a new dataset; the original is only read."""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image
from pycocotools import mask as mask_utils

from diffinst.datasets.coco_entries import FREQUENCIES, LISTS_OF_CLASSES
from diffinst.datasets.doctor.classes import known_classes
from diffinst.datasets.doctor.examine import Report
from diffinst.datasets.doctor.geometry import mask_box
from diffinst.datasets.doctor.tables import Entry, ImageEntry, Tables, Thing
from diffinst.datasets.load import load_split
from diffinst.datasets.problems import DatasetError
from diffinst.io.disk import check_space, writing


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a repair wrote, and how much of the original is in it.

    Attributes:
        out: The new folder.
        images: Written, and named by the original.
        objects: Written, and listed by the original.
    """

    out: Path
    images: tuple[int, int]
    objects: tuple[int, int]


def write(
    report: Report, out: str | Path, progress: Callable[[int, int], None] = lambda *_: None
) -> Repaired:
    """Write a repaired copy in COCO layout: annotations/instances_{split}.json and {split}/.

    The folder appears under its name when it is complete and has been loaded, or not at all.

    Args:
        report: What `examine` found.
        out: A folder that does not exist yet, or is empty.
        progress: Called with (images copied, images in all).

    Raises:
        DatasetError: Something breaks training and has to be corrected by hand.
        FileExistsError: `out` is there already.
        OSError: `out` cannot be written, or there is too little room for it.
    """
    out = Path(os.path.realpath(out))
    _check_repairable(report)
    check_free(out, [report.root, *(tables.files.images for tables in report.splits)])
    pairs = [(tables, image) for tables in report.splits for image in tables.kept]
    check_space(out, sum(image.path.stat().st_size for _, image in pairs), "the repaired copy")
    with writing(out, "nothing of the copy is left"), _complete_or_absent(out) as folder:
        done = 0
        for tables in report.splits:
            names = _file_names(tables)
            for image in tables.kept:
                _copy(image, folder / tables.name / names[image])
                done += 1
                progress(done, len(pairs))
            (folder / tables.name).mkdir(exist_ok=True)
            _write_json(folder / "annotations" / f"instances_{tables.name}.json", tables, names)
        for tables in report.splits:
            load_split(folder, tables.name)
    things = [thing for tables in report.splits for p in tables.images for thing in p.things]
    return Repaired(
        out,
        (len(pairs), sum(len(tables.images) for tables in report.splits)),
        (sum(len(image.kept_things) for _, image in pairs), len(things)),
    )


def _check_repairable(report: Report) -> None:
    left = [one for one in report.findings if one.severity == "breaks" and one.left]
    if left:
        codes = ", ".join(dict.fromkeys(f"{one.code} in {one.split or 'all'}" for one in left))
        raise DatasetError(
            f"{report.root}: cannot be repaired without you: {codes}; correct that by hand, see "
            "the report, and run it again"
        )


def check_free(out: str | Path, sources: Iterable[Path]) -> None:
    """Refuse a folder that holds something, or lies where the original is.

    Raises:
        FileExistsError: It is there already.
        ValueError: It lies inside one of the sources.
        PermissionError: It cannot be made.
    """
    out = Path(os.path.realpath(out))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} is there already; name a folder that does not exist yet")
    folders = (source if source.is_dir() else source.parent for source in sources)
    inside = next((folder for folder in folders if out.is_relative_to(folder.resolve())), None)
    if inside is not None:
        raise ValueError(f"{out} lies in {inside}, which stays as it is; name a folder outside")
    above = next(folder for folder in out.parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise PermissionError(f"{out} cannot be made: {above} may not be written; name another")


@contextmanager
def _complete_or_absent(out: Path) -> Iterator[Path]:
    """A hidden folder beside `out` that takes its name if the block succeeds, else goes."""
    temporary = out.with_name(f".{out.name[:32]}.{secrets.token_hex(4)}.tmp")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if out.is_dir():
            out.rmdir()  # empty: checked before; where it is not any more, this refuses
        os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _file_names(tables: Tables) -> dict[ImageEntry, str]:
    """Each image's name below the split's folder: its own, unless it leads out or is taken."""
    names: dict[ImageEntry, str] = {}
    taken: set[str] = set()
    for image in tables.kept:
        inside = image.path.is_relative_to(tables.files.images)
        below = image.path.relative_to(tables.files.images) if inside else image.path.name
        name = PurePosixPath(below)
        if not inside or ".." in name.parts:
            name = PurePosixPath(name.name)
        if image.unrotated:
            name = name.with_suffix(".png")
        free, count = name, 1
        while str(free).casefold() in taken:
            count += 1
            free = name.with_name(f"{name.stem}-{count}{name.suffix}")
        taken.add(str(free).casefold())
        names[image] = str(free)
    return names


def _copy(image: ImageEntry, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not image.unrotated:
        shutil.copyfile(image.path, target)
        return
    with Image.open(image.path) as opened:
        upright = opened.convert("RGB")  # a new image: pixels as stored, without the mark
    upright.info.clear()
    upright.save(target, format="PNG", exif=b"")


def _write_json(file: Path, tables: Tables, names: dict[ImageEntry, str]) -> None:
    ids = _annotation_ids(tables)
    content = {
        **tables.extra,
        "images": [_image_entry(image, names[image], tables) for image in tables.kept],
        "annotations": [
            _annotation_entry(image, thing, ids[thing])
            for image in tables.kept
            for thing in image.kept_things
        ],
        "categories": [
            _class_entry(tables.class_entries[number], number, name)
            for number, name in tables.classes.items()
        ],
    }
    file.parent.mkdir(exist_ok=True)
    try:
        text = json.dumps(_finite(content), ensure_ascii=False, allow_nan=False)
    except RecursionError as error:
        raise DatasetError(
            f"{tables.files.annotations}: holds lists within lists, too deep to be written again; "
            "remove them"
        ) from error
    file.write_text(text + "\n", encoding="utf-8")


def _annotation_ids(tables: Tables) -> dict[Thing, int]:
    """The id of each object: its own where it is the first to have it."""
    things = [thing for image in tables.kept for thing in image.kept_things]
    free = max((thing.id for thing in things if thing.id is not None), default=0) + 1
    ids: dict[Thing, int] = {}
    taken: set[int] = set()
    for thing in things:
        if thing.id is None or thing.id in taken:
            ids[thing], free = free, free + 1
        else:
            ids[thing] = thing.id
        taken.add(ids[thing])
    return ids


def _class_entry(entry: Entry, number: int, name: str) -> Entry:
    sound = dict(entry)
    if not isinstance(sound.get("supercategory"), str | None):
        del sound["supercategory"]
    if sound.get("frequency") not in (None, *FREQUENCIES):
        del sound["frequency"]
    return {**sound, "id": number, "name": name}


def _image_entry(image: ImageEntry, file_name: str, tables: Tables) -> Entry:
    assert image.size is not None
    height, width = image.size
    entry = {**image.entry, "id": image.id, "file_name": file_name}
    entry.update(height=height, width=width)
    for key in LISTS_OF_CLASSES:
        if key in entry:
            known = known_classes(entry[key], tables.renumbered)
            entry[key] = list(dict.fromkeys(tables.renumbered[number] for number in known))
    return entry


def _annotation_entry(image: ImageEntry, thing: Thing, number: int) -> Entry:
    assert thing.mask is not None
    if thing.box is None:
        x0, y0, x1, y1 = mask_box(thing.mask)
        bbox: object = [x0, y0, x1 - x0, y1 - y0]
    else:
        bbox = thing.entry["bbox"]
    area = float(mask_utils.area(thing.mask)) if thing.area is None else thing.area
    segmentation = thing.segmentation
    if isinstance(segmentation, dict) and isinstance(segmentation["counts"], bytes):
        segmentation = {**segmentation, "counts": segmentation["counts"].decode()}
    return {
        **thing.entry,
        "id": number,
        "image_id": image.id,
        "category_id": thing.category_id,
        "bbox": bbox,
        "area": area,
        "iscrowd": int(thing.crowd),
        "segmentation": segmentation,
    }


def _finite(value: object) -> object:
    """NaN and infinity, which JSON does not know, as null: only fields nobody reads hold them."""
    match value:
        case float() if not math.isfinite(value):
            return None
        case dict():
            return {key: _finite(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_finite(inner) for inner in value]
        case _:
            return value
