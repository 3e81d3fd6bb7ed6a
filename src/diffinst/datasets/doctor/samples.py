"""Chooses images for a person to look at: a spread of the data, one for each kind of finding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffinst.datasets.doctor.findings import Finding
from diffinst.datasets.doctor.geometry import Box
from diffinst.datasets.doctor.tables import ImageEntry, Tables, Thing
from diffinst.datasets.images import Folder
from diffinst.datasets.problems import Place
from diffinst.datasets.segmentation import RLE

UNSEEN = {"missing-image", "unreadable-image", "many-objects"}
"""There is nothing to show, or it is the first of the spread."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """One object as the file has it.

    Attributes:
        box: xyxy pixels, or None.
        mask: Of the sample's size, or None where it cannot be drawn.
        name: Of its class.
    """

    box: Box | None
    mask: RLE | None
    name: str


@dataclass(frozen=True, slots=True)
class Sample:
    """An image with what is annotated on it.

    Attributes:
        title: Two lines.
        path: Of the image.
        size: (height, width) as annotated; None: nothing is known of the image.
        drawn: The objects; for a finding about objects, those concerned alone.
    """

    title: str
    path: Path
    size: tuple[int, int] | None
    drawn: tuple[Drawn, ...]


def spread(splits: Sequence[Tables], count: int) -> list[Sample]:
    """The fullest image, then others evenly from full to empty; the same ones each time."""
    readable = [(tables, p) for tables in splits for p in tables.kept if p.facts is not None]
    readable.sort(key=lambda pair: -len(pair[1].kept_things))
    last = len(readable) - 1
    if count >= len(readable):
        picked = list(range(len(readable)))
    else:
        picked = [round(i * last / max(count - 1, 1)) for i in range(count)]
    return [_whole(*readable[i]) for i in picked]


def _whole(tables: Tables, image: ImageEntry) -> Sample:
    things = image.kept_things
    objects = "1 object" if len(things) == 1 else f"{len(things)} objects"
    title = f"{tables.name}: {objects}\n{image.file_name}"
    return _sample(title, tables, image, things)


def one_per_finding(splits: Sequence[Tables], findings: Sequence[Finding]) -> Iterator[Sample]:
    """For each kind of finding that can be seen, an image that shows it."""
    seen = set(UNSEEN)
    for finding in findings:
        tables = next((tables for tables in splits if tables.name == finding.split), None)
        if tables is None or finding.code in seen:
            continue
        for place in finding.places:
            sample = _of_place(tables, finding, place)
            if sample is not None:
                seen.add(finding.code)
                yield sample
                break


def _of_place(tables: Tables, finding: Finding, place: Place) -> Sample | None:
    image = _find(tables, place)
    title = f"{finding.code}\n{tables.name}: {place.file_name}"
    if image is None:
        folder = Folder(tables.files.images)
        found = folder.find(place.file_name, "") if place.file_name else []
        return Sample(title, folder.root / found[0], None, ()) if len(found) == 1 else None
    if image.facts is None:
        return None
    if place.annotation_id is None:
        return _sample(title, tables, image, image.things)
    here = {other.annotation_id for other in finding.places if other.image_id == image.id}
    return _sample(title, tables, image, [t for t in image.things if t.id in here])


def _find(tables: Tables, place: Place) -> ImageEntry | None:
    by_name = [p for p in tables.images if p.file_name == place.file_name]
    return next((p for p in by_name if place.image_id in (None, p.id)), None)


def _sample(title: str, tables: Tables, image: ImageEntry, things: Sequence[Thing]) -> Sample:
    drawn = (
        Drawn(thing.drawn, thing.mask, tables.classes.get(thing.category_id, "?"))
        for thing in things
    )
    return Sample(title, image.path, image.size, tuple(drawn))
