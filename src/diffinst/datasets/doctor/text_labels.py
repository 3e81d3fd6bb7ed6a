"""What do YOLO's label files say, line by line, as far as they can be understood at all?"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import yaml

from diffinst.datasets import yolo
from diffinst.datasets.doctor.findings import Notebook
from diffinst.datasets.doctor.locate import images_in
from diffinst.datasets.doctor.tables import ImageEntry, Tables, Thing
from diffinst.datasets.layouts import SplitFiles
from diffinst.datasets.problems import Place, repeated

OVERSHOOT = 0.1  # of a side: farther outside than this, coordinates are no shares at all
_BOX_NUMBERS = 4


def read_labels(files: SplitFiles, notes: Notebook) -> Tables | None:
    """Read a YOLO split, noting whatever is wrong with its lines.

    Images are numbered in order, and so are the objects, as annotation ids. The polygons stay
    shares of the image until its size is known.

    Returns:
        Images with their annotations; None if the data.yaml names no classes.
    """
    content = yaml.safe_load(files.annotations.read_text(encoding="utf-8-sig"))
    tables = Tables(files)  # `find_splits` has read the file already: it is a mapping
    if not _read_classes(tables, content, notes):
        return None
    labels: set[Path] = set()
    unlabelled: list[ImageEntry] = []
    bases = yolo.bases(files.annotations)
    lines = _Lines(tables, notes)
    for path in _images(files, content):
        name = path.relative_to(files.images) if path.is_relative_to(files.images) else path
        image = ImageEntry(len(tables.images) + 1, name.as_posix(), None, path, {})
        tables.images.append(image)
        label = yolo.label_path(path, bases)
        labels.add(label)
        lines.read(label, image)
        if not os.path.isfile(label):
            unlabelled.append(image)
    code = "yolo-boxes-only" if len(lines.boxes) == lines.objects else "yolo-box"
    for place in lines.boxes:
        notes.add(code, tables.name, place)
    if len(unlabelled) < len(tables.images):
        for image in filter(lambda one: os.path.isfile(one.path), unlabelled):
            detail = f"looked for {yolo.label_path(image.path, bases)}"
            notes.add("missing-label-file", tables.name, image.place(detail))
    elif unlabelled and tables.name not in yolo.UNANNOTATED:
        detail = f"looked for {yolo.label_path(unlabelled[0].path, bases)}, ..."
        notes.add("no-label-files", tables.name, Place(detail=detail))
    _note_strays(labels, tables, notes)
    return tables


def _read_classes(tables: Tables, content: Mapping[str, object], notes: Notebook) -> bool:
    """Fill `classes`; whether there are any."""
    names = content.get("names")
    pairs = dict(enumerate(names)) if isinstance(names, list) else names
    known = isinstance(pairs, dict) and pairs and all(type(i) is int and i >= 0 for i in pairs)
    count = content.get("nc")
    if not isinstance(pairs, dict) or not known:
        detail = "'names' is missing, empty, or no list of class names"
    elif count is not None and count != len(pairs):
        detail = f"'nc' is {count}, 'names' holds {len(pairs)}"
    else:
        detail = ""
    if detail:
        place = Place(file_name=str(tables.files.annotations), detail=detail)
        notes.add("yolo-names", tables.name, place, repaired=bool(known))
    if not isinstance(pairs, dict) or not known:
        return False
    tables.classes = {i: str(pairs[i]).strip() or f"class {i}" for i in sorted(pairs)}
    tables.renumbered = {number: number for number in tables.classes}
    for name, numbers in repeated(tables.classes, tables.classes.__getitem__):
        place = Place(detail=f"'{name}': classes {', '.join(map(str, numbers))}")
        notes.add("duplicate-class-name", tables.name, place)
        for number in numbers[1:]:
            tables.renumbered[number] = numbers[0]
            del tables.classes[number]
    tables.class_entries = {number: {} for number in tables.classes}
    return True


def _images(files: SplitFiles, content: Mapping[str, object]) -> list[Path]:
    """The images of a split, each once, in order, also those that are listed and not there."""
    found: list[Path] = []
    home, path = files.annotations.parent, str(content.get("path") or "")
    bases = (home / path, home.absolute().parent / path, home)
    for source in yolo.sources(files.annotations)[files.name]:
        if source.is_dir():
            found += images_in(source)
            continue
        for line in source.read_text(encoding="utf-8-sig", errors="replace").splitlines():
            name = line.strip()
            places = [place / name for place in (source.parent, *bases)]
            if name:
                found.append(next((place for place in places if os.path.isfile(place)), places[0]))
    return list(dict.fromkeys(found))


class _Lines:
    """Reads label files; numbers the objects on the way and remembers which are boxes."""

    def __init__(self, tables: Tables, notes: Notebook) -> None:
        self.tables, self.notes = tables, notes
        self.objects = 0
        self.boxes: list[Place] = []

    def read(self, file: Path, image: ImageEntry) -> None:
        """Take the objects of an image; without a label file it shows none."""
        try:
            text = file.read_text(encoding="utf-8-sig") if os.path.isfile(file) else ""
        except (OSError, UnicodeDecodeError) as error:
            detail = f"{file.name} cannot be read ({error})"
            self.notes.add("yolo-line", self.tables.name, image.place(detail))
            return
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                self._read(line, f"{file.name}, line {number}", image)

    def _read(self, line: str, where: str, image: ImageEntry) -> None:
        def note(code: str, detail: str) -> None:
            self.notes.add(code, self.tables.name, image.place(f"{where}: {detail}"))

        try:
            kind, *shares = map(float, line.split())
        except ValueError:
            note("yolo-line", repr(line.strip()[:40]))
            return
        if not kind.is_integer() or not shares or len(shares) % 2:
            note("yolo-line", f"{len(shares) + 1} numbers, the first {kind:g}")
            return
        if int(kind) not in self.tables.renumbered:
            note("yolo-class", f"class {int(kind)}")
            return
        outside = [share for share in shares if not -OVERSHOOT <= share <= 1 + OVERSHOOT]
        if outside:  # NaN, too
            note("yolo-range", f"{outside[0]:g}")
            return
        self.objects += 1
        number, category_id = self.objects, self.tables.renumbered[int(kind)]
        thing = Thing(number, category_id, [shares], None, None, False, {}, where=where)
        if len(shares) == _BOX_NUMBERS:
            x, y, width, height = shares
            left, right, top, bottom = x - width / 2, x + width / 2, y - height / 2, y + height / 2
            thing.segmentation = [[left, top, right, top, right, bottom, left, bottom]]
            self.boxes.append(image.place_of(thing))
        image.things.append(thing)


def _note_strays(labels: set[Path], tables: Tables, notes: Notebook) -> None:
    """Label files without an image, in folders that are for labels only."""
    for folder in sorted({path.parent for path in labels if "labels" in path.parts}):
        for path in sorted(folder.glob("*.txt")):
            if path not in labels and path.name != "classes.txt":  # which some tools add
                place = Place(file_name=f"{folder.name}/{path.name}")
                notes.add("label-without-image", tables.name, place)
