"""What YOLO's label files say, line by line, as far as they can be understood at all."""

from __future__ import annotations

import os
from pathlib import Path

from diffinst.datasets import yolo
from diffinst.datasets.doctor.findings import Notebook
from diffinst.datasets.doctor.tables import ImageEntry, Tables, Thing
from diffinst.datasets.layouts import SplitFiles
from diffinst.datasets.problems import Place

_TOLD_BY_IMAGES = ("missing-image", "no-images")  # when they are looked at


def read_labels(files: SplitFiles, notes: Notebook) -> Tables | None:
    """Read a YOLO split, noting whatever is wrong with its lines.

    Images are numbered in order, and so are the objects, as annotation ids. The polygons stay
    fractions of the image until its size is known.

    Returns:
        Images with their annotations; None if the data.yaml names no classes.
    """
    tables = Tables(files)
    sink = _Collected(tables)
    problems = notes.of(files.name, but=_TOLD_BY_IMAGES)
    found = yolo.scan(files.annotations, files.name, problems, sink)
    if found is None:
        return None
    tables.classes = {i: n if n.strip() else f"class {i}" for i, n in found.classes.items()}
    tables.class_entries = {number: {} for number in tables.classes}
    tables.renumbered = found.renumbered
    if len(found.boxes) < found.objects:
        for _, place in found.boxes:
            notes.add("yolo-box", tables.name, place)
    if len(found.unlabelled) < found.images:
        for image, label_file, place in found.unlabelled:
            if os.path.isfile(image):
                detail = f"looked for {label_file}"
                at = Place(place.image_id, place.file_name, None, detail)
                notes.add("missing-label-file", tables.name, at)
    _note_strays(sink.labels, tables, notes)
    return tables


class _Collected:
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


def _note_strays(labels: set[Path], tables: Tables, notes: Notebook) -> None:
    """Label files without an image, in folders that are for labels only."""
    for folder in sorted({path.parent for path in labels if "labels" in path.parts}):
        for path in sorted(folder.glob("*.txt")):
            if path not in labels and path.name != "classes.txt":  # which some tools add
                place = Place(file_name=f"{folder.name}/{path.name}")
                notes.add("label-without-image", tables.name, place)
