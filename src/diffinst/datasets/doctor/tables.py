"""What annotation files say, as far as they can be understood at all.

Every entry is taken as the reader understands it: what is wrong with it is noted, what can be told
is corrected, and the rest is marked as not kept. So, once all checks have run, what is still marked
as kept is the repaired dataset.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from diffinst.datasets import coco, yolo
from diffinst.datasets.coco_entries import NO_ID, Image, Object
from diffinst.datasets.doctor.findings import Notebook
from diffinst.datasets.doctor.geometry import Box
from diffinst.datasets.doctor.images import Facts
from diffinst.datasets.layouts import SplitFiles
from diffinst.datasets.problems import DatasetError, Place, repeated
from diffinst.datasets.segmentation import RLE

Entry: TypeAlias = dict[str, object]
_TOLD_BY_IMAGES = ("missing-image", "no-images")  # when they are looked at


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
        notes: What was found.
        images: In the order of the file.
        classes: Name by category id, ascending.
        class_entries: All that the file says, by category id.
        extra: The other keys of the file ("info", "licenses", ...).
        renumbered: What became of the file's class ids; those that are gone are not in it.
    """

    files: SplitFiles
    notes: Notebook
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


class _Collected(coco.Sink):
    """All entries of a file that can be told apart, with all that they say."""

    raw = True

    def __init__(self, files: SplitFiles) -> None:
        super().__init__(files.annotations)
        self.folder = files.images
        self.entries: list[ImageEntry] = []
        self.things: list[Thing] = []

    def image(self, image: Image, entry: object) -> None:
        """Take an image that has an id and a name, were it an empty one."""
        if image.id == NO_ID or not (image.file_name or _said(entry).get("file_name") == ""):
            return
        super().image(image, entry)
        name, size = image.file_name, (image.height, image.width)
        path, said = self.folder / name, _said(entry)
        known = size if all(size) else None
        self.entries.append(ImageEntry(image.id, name, known, path, said, image.other))

    def object(self, one: Object, entry: object) -> None:
        """Take an annotation that names an image and a class."""
        if NO_ID in (one.image_id, one.category_id):
            return
        self.objects.add_ids(one.id, one.image_id, one.category_id)
        box = None
        if one.bbox is not None:
            x, y, width, height = one.bbox
            box = (x, y, x + width, y + height)
        number = None if one.id == NO_ID else one.id
        crowd, mask = bool(one.iscrowd), one.segmentation
        self.things.append(
            Thing(number, one.category_id, mask, box, one.area, crowd, _said(entry), drawn=box)
        )


def _said(entry: object) -> Entry:
    return entry if isinstance(entry, dict) else {}


def read_tables(files: SplitFiles, notes: Notebook) -> Tables | None:
    """Read a COCO or LVIS file as far as it goes, noting whatever is wrong with its entries.

    Returns:
        Images with their annotations; None if the file is broken as a whole.
    """
    sink, tables = _Collected(files), Tables(files, notes)
    try:
        found = coco.scan(files.annotations, notes, sink, tables.extra)
    except DatasetError as error:
        problem = str(error).removeprefix(f"{files.annotations}: ")
        notes.note(error.code, Place(file_name=str(files.annotations)), problem=problem)
        return None
    if found is None:
        return None
    tables.images, tables.renumbered = sink.entries, found.renumbered
    masks = any(thing.segmentation for thing in sink.things)
    if sink.things and not masks:
        notes.note("boxes-only", Place(file_name=str(files.annotations)), count=len(sink.things))
    notes.name_images({image.id: image.file_name for image in reversed(sink.entries)})
    for thing, row, label in zip(sink.things, found.rows, found.labels, strict=True):
        thing.kept = bool(label >= 0) and masks
        thing.category_id = found.renumbered.get(thing.category_id, thing.category_id)
        if row >= 0:
            tables.images[row].things.append(thing)
    for _, twins in repeated(tables.images, lambda image: image.id):
        same = len({twin.file_name for twin in twins}) == 1
        for twin in twins[1:] if same else twins:
            twin.kept = False
    tables.classes = {category.id: category.name for category, _ in found.classes}
    tables.class_entries = {category.id: _said(entry) for category, entry in found.classes}
    alike = repeated(tables.classes, lambda i: " ".join(tables.classes[i].lower().split()))
    for _, ids in alike:
        names = [f"'{tables.classes[number]}'" for number in ids]
        notes.note("similar-class-names", Place(detail=", ".join(names)))
    return tables


def read_labels(files: SplitFiles, notes: Notebook) -> Tables | None:
    """Read a YOLO split, noting whatever is wrong with its lines.

    Images are numbered in order, and so are the objects, as annotation ids. The polygons stay
    fractions of the image until its size is known.

    Returns:
        Images with their annotations; None if the data.yaml names no classes.
    """
    tables = Tables(files, notes)
    sink, problems = _Labels(tables), notes.of(files.name, but=_TOLD_BY_IMAGES)
    found = yolo.scan(files.annotations, files.name, problems, sink)
    if found is None:
        return None
    tables.classes = {i: n if n.strip() else f"class {i}" for i, n in found.classes.items()}
    tables.class_entries = {number: {} for number in tables.classes}
    tables.renumbered = found.renumbered
    if len(found.boxes) < found.objects:
        for _, place in found.boxes:
            notes.note("yolo-box", place)
    if len(found.unlabelled) < found.images:
        for image, label_file, place in found.unlabelled:
            if os.path.isfile(image):
                detail = f"looked for {label_file}"
                notes.note("missing-label-file", replace(place, detail=detail))
    _note_strays(sink.labels, notes)
    return tables


class _Labels:
    """Images and objects of a split."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.labels: set[Path] = set()
        self.objects = 0

    def image(self, path: Path, label_file: Path) -> Place:
        folder, images = self.tables.files.images, self.tables.images
        name = path.relative_to(folder) if path.is_relative_to(folder) else path
        images.append(ImageEntry(len(images) + 1, name.as_posix(), None, path, {}))
        self.labels.add(label_file)
        return images[-1].place()

    def object(self, kind: int, polygon: list[float], where: str) -> None:
        self.objects += 1
        where = os.path.basename(where)
        thing = Thing(self.objects, kind, [polygon], None, None, False, {}, where=where)
        self.tables.images[-1].things.append(thing)


def _note_strays(labels: set[Path], notes: Notebook) -> None:
    """Label files without an image, in folders that are for labels only."""
    for folder in sorted({path.parent for path in labels if "labels" in path.parts}):
        for path in sorted(folder.glob("*.txt")):
            if path not in labels and path.name != "classes.txt":  # which some tools add
                place = Place(file_name=f"{folder.name}/{path.name}")
                notes.note("label-without-image", place)
