"""Reads YOLO segmentation: a data.yaml, and for each image a text file of polygons.

An image's labels lie in the folder labels/ beside images/ (R/images/train/a.jpg and
R/labels/train/a.txt, R/train/images/a.jpg and R/train/labels/a.txt), or beside the image. A
line is `class x1 y1 x2 y2 ...`, in fractions of the image's width and height.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import ExifTags, Image

from diffinst.datasets import data_yaml
from diffinst.datasets.data_yaml import images_of
from diffinst.datasets.packed import Contents
from diffinst.datasets.packer import Images, Objects, flat, pack
from diffinst.datasets.problems import DatasetError, Place, Problems, Refusal, shown
from diffinst.io.regular import check_regular

UNANNOTATED = ("test",)  # splits of images that may all be without a label file

_OVERSHOOT = 0.1  # of the image: further out, the numbers are no fractions of its sides
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height


class Sink(Protocol):
    """Takes images and objects one by one."""

    def image(self, path: Path, label_file: Path) -> Place:
        """Take an image; returns where it is, for a report."""

    def object(self, kind: int, polygon: list[float], where: str) -> None:
        """Take an object of the last image: x1, y1, x2, y2, ... in fractions of its sides."""


@dataclass
class Found:
    """What a split holds besides what the sink got.

    Attributes:
        classes: Names by number, ascending.
        renumbered: By number: itself, or the class it is merged into.
        images: How many.
        objects: How many.
        boxes: The lines that are boxes: file and line, and the place for a report.
        unlabelled: Images without a label file, where it was looked for, and their place.
        twice: Names of images that are listed more than once.
    """

    classes: dict[int, str]
    renumbered: dict[int, int]
    images: int = 0
    objects: int = 0
    boxes: list[tuple[str, Place]] = field(default_factory=list)
    unlabelled: list[tuple[Path, Path, Place]] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)


class _Columns:
    """Objects as polygons in pixels."""

    def __init__(self) -> None:
        self.images, self.objects = Images(), Objects()
        self.size = (0, 0)

    def image(self, path: Path, label_file: Path) -> Place:
        self.size = _size(path)
        self.images.add(len(self.images.ids) + 1, *self.size, str(path.absolute()))
        return Place()

    def object(self, kind: int, polygon: list[float], where: str) -> None:
        height, width = self.size
        pixels = [v * (height if i % 2 else width) for i, v in enumerate(polygon)]
        row, number = len(self.images.ids) - 1, len(self.objects.ids) + 1
        self.objects.add(number, row, kind, [pixels], None, None, 0)


def read(file: Path, split: str) -> Contents:
    """Read and check one split; of each image only the header is read, for its size.

    File names of the images are absolute. Boxes and areas are those of the masks.

    Lines of a class and four numbers are boxes. Where a split has nothing else it is refused, for
    there are no masks to learn; among polygons they become rectangles, which `Contents.notes`
    tells, as it does how many images have no label file and are taken as showing nothing (an
    empty file says so itself). Lines of a single point are left out.

    Args:
        file: The data.yaml.
        split: One of `data_yaml.sources(file)`.

    Raises:
        DatasetError: Something is missing, of a wrong type or out of range.
    """
    sink = _Columns()
    found = scan(file, split, Refusal(), sink)
    assert found is not None  # refused before
    kinds = flat(sink.objects.categories, np.int64)
    labels = np.searchsorted(np.array(list(found.classes)), kinds)
    packed, left_out = pack(sink.images, sink.objects, flat(sink.objects.images, np.int64), labels)
    notes = []
    if 0 < len(found.unlabelled) < found.images:
        notes.append(
            f"{len(found.unlabelled)} of {found.images} images of '{split}' have no label file "
            f"(first {found.unlabelled[0][0]}): taken as showing nothing"
        )
    if found.boxes:
        notes.append(
            f"{len(found.boxes)} of {found.objects} objects of '{split}' are boxes and were taken "
            f"for rectangular masks (first {found.boxes[0][0]})"
        )
    if found.twice:
        notes.append(f"'{split}' lists {shown(found.twice)} more than once; each is taken once")
    return Contents(
        packed=packed,
        classes=tuple(found.classes.values()),
        category_ids=tuple(found.classes),
        left_out=tuple(left_out),
        notes=tuple(notes),
    )


def scan(file: Path, split: str, problems: Problems, sink: Sink) -> Found | None:
    """Go through a split, image by image and line by line.

    Args:
        file: The data.yaml.
        split: One of `data_yaml.sources(file)`.
        problems: Gets what is wrong.
        sink: Gets images and objects.

    Returns:
        What else there is; None where there are no classes.

    Raises:
        DatasetError: The data.yaml is broken.
    """
    classes, renumbered = data_yaml.names(file, problems)
    if not classes:
        return None
    found = Found(classes, renumbered)
    paths, found.twice = images_of(file, split, problems)
    places = data_yaml.bases(file)
    for path in paths:
        found.images += 1
        label_file = label_path(path, places)
        place = sink.image(path, label_file)
        text = _text(label_file, place, problems)
        if text is None:
            found.unlabelled.append((path, label_file, place))
        for number, line in enumerate((text or "").splitlines(), start=1):
            where = f"{label_file}, line {number}"
            read = _numbers(line, where, place, problems) if line.strip() else None
            if read is None:
                continue
            kind, polygon = read
            if kind not in renumbered:
                known = shown(renumbered)
                problems.note("yolo-class", place, where=where, given=kind, file=file, known=known)
                continue
            found.objects += 1
            if len(polygon) == 4:
                box = replace(place, annotation_id=found.objects, detail=os.path.basename(where))
                found.boxes.append((where, box))
                polygon = _rectangle(polygon)
            sink.object(renumbered[kind], polygon, where)
    if paths and len(found.unlabelled) == len(paths) and split not in UNANNOTATED:
        first = found.unlabelled[0][1]
        problems.note("no-label-files", where=str(file), count=len(paths), split=split, first=first)
    if len(found.boxes) == found.objects:
        for where, place in found.boxes:
            problems.note("yolo-boxes-only", place, where=where, split=split)
    return found


def label_path(image: Path, bases: Sequence[Path] = ()) -> Path:
    """The label file of an image; where there is none, the first that would do.

    Args:
        image: Its path.
        bases: Of its dataset. Folders above the one it lies below may be called images, too; they
            only count where the file is in none of the usual places.
    """
    parts, absolute = image.parts, image.absolute()
    above = next((base for base in reversed(bases) if absolute.is_relative_to(base)), Path())
    first = len(above.parts) - len(absolute.parts) + len(parts) if above.parts else 0
    folders = [i for i, part in enumerate(parts[:-1]) if part == "images"]
    beside = image.with_suffix(".txt")
    if not folders:
        return beside
    last = folders[-1]
    parallel = Path(*parts[:last], "labels", *parts[last + 1 :]).with_suffix(".txt")
    usual, other = (parallel, beside) if last >= first else (beside, parallel)
    return other if not os.path.isfile(usual) and os.path.isfile(other) else usual


def state(file: Path, split: str) -> str:
    """Changes with the data.yaml, the images and their label files."""
    digest = hashlib.sha256(file.read_bytes())
    places = data_yaml.bases(file)
    for image in images_of(file, split, Refusal())[0]:
        for path in (image, label_path(image, places)):
            try:
                status = path.stat()
            except FileNotFoundError:
                digest.update(f"{path}\0".encode(errors="surrogateescape"))
            else:
                line = f"{path} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}\0"
                digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


def _size(path: Path) -> tuple[int, int]:
    """Height and width, EXIF rotation applied."""
    try:
        check_regular(path)
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(ExifTags.Base.Orientation) in _TURNED
    except Exception as error:  # Pillow's decoders raise nearly everything on damaged files
        problem = getattr(error, "strerror", None) or error
        raise DatasetError(f"{path}: cannot be read as an image ({problem}); replace it") from error
    return (width, height) if turned else (height, width)


def _text(file: Path, place: Place, problems: Problems) -> str | None:
    """None where there is no such file."""
    try:
        check_regular(file)
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        given = f"cannot be read ({getattr(error, 'strerror', None) or error})"
        problem = f"{given}; correct it"
        problems.note("yolo-line", place, where=str(file), given=given, problem=problem)
        return ""


def _numbers(
    line: str, where: str, place: Place, problems: Problems
) -> tuple[int, list[float]] | None:
    """Class and coordinates; None after a note."""
    code, problem = "yolo-line", ""
    try:
        first, *values = map(float, line.split())
    except ValueError:
        given = repr(line.strip()[:60])
        problem = f"{given} are no numbers; correct it"
    else:
        outside = [v for v in values if not -_OVERSHOOT <= v <= 1 + _OVERSHOOT]  # NaN, too
        if not first.is_integer() or len(values) % 2 or not values:
            given = f"{len(values) + 1} numbers, the first {first:g}"
            problem = f"{given}; allowed is a class number and x1 y1 x2 y2 ...: correct it"
        elif outside:
            code, given = "yolo-range", f"{outside[0]:g}"
        else:
            return int(first), values
    problems.note(code, place, where=where, given=given, problem=problem)
    return None


def _rectangle(box: Sequence[float]) -> list[float]:
    """The corners of a box given by its centre and its sides."""
    x, y, width, height = box
    left, right, top, bottom = x - width / 2, x + width / 2, y - height / 2, y + height / 2
    return [left, top, right, top, right, bottom, left, bottom]
