"""Reads YOLO segmentation: a data.yaml, and for each image a text file of polygons.

An image's labels lie in the folder labels/ beside images/ (R/images/train/a.jpg and
R/labels/train/a.txt, R/train/images/a.jpg and R/train/labels/a.txt), or beside the image. A
line is `class x1 y1 x2 y2 ...`, in shares of the image's width and height.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml
from PIL import ExifTags, Image

from diffinst.datasets.packed import Contents
from diffinst.datasets.packer import Images, Objects, flat, pack
from diffinst.datasets.problems import DatasetError, shown
from diffinst.io.images import ImageReadError, list_images

SPLITS = ("train", "val", "test")
UNANNOTATED = ("test",)  # splits of images that may all be without a label file

_OVERSHOOT = 0.1  # of the image: further out, the numbers are no shares of its sides
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height


def sources(file: Path) -> dict[str, list[Path]]:
    """Where the images of each split are: folders, or text files that list images.

    Splits of which nothing is there are left out (exports list a test split that they lack).

    Args:
        file: The data.yaml.

    Raises:
        DatasetError: The file is broken, says something that is no path, or names two folders of
            which only one is there.
    """
    content = _read_yaml(file)
    named = {**content, "val": content.get("val", content.get("valid"))}
    found = {split: _existing(file, content, split, named.get(split)) for split in SPLITS}
    return {split: paths for split, paths in found.items() if paths}


def is_dataset(file: Path) -> bool:
    """Whether a YAML file describes a dataset."""
    try:
        content = _read_yaml(file)
    except DatasetError:
        return False
    return "names" in content and ("train" in content or "val" in content)


def read(file: Path, split: str) -> Contents:
    """Read and check one split; of each image only the header is read, for its size.

    File names of the images are absolute. Boxes and areas are those of the masks.

    Lines of a class and four numbers are boxes. Where a split has nothing else it is refused, for
    there are no masks to learn; among polygons they become rectangles, which `Contents.notes`
    tells, as it does how many images have no label file and are taken as showing nothing (an
    empty file says so itself). Lines of a single point are left out.

    Args:
        file: The data.yaml.
        split: One of `sources(file)`.

    Raises:
        DatasetError: Something is missing, of a wrong type or out of range.
    """
    names = _names(file)
    labels = {number: label for label, number in enumerate(names)}
    images, objects = Images(), Objects()
    paths, twice = images_of(file, split)
    places = bases(file)
    boxes, first_box = 0, ""
    unlabelled: list[Path] = []
    for row, path in enumerate(paths):
        height, width = _size(path)
        images.add(row + 1, height, width, str(path.absolute()))
        text = _labels(label_file := label_path(path, places))
        unlabelled += [path] if text is None else []
        for number, line in enumerate((text or "").splitlines(), start=1):
            if not line.strip():
                continue
            where = f"{label_file}, line {number}"
            kind, values = _numbers(line, where)
            if kind not in labels:
                raise DatasetError(
                    f"{where}: class {kind} is not among those in 'names' of {file} "
                    f"({shown(labels)}); correct one of them"
                )
            if len(values) == 4:
                boxes, first_box = boxes + 1, first_box or where
                values = _rectangle(values)
            polygon = [v * (height if i % 2 else width) for i, v in enumerate(values)]
            objects.add(len(objects.ids) + 1, row, labels[kind], [polygon], None, None, 0)
    bare = len(unlabelled) == len(paths)
    if paths and bare and split not in UNANNOTATED:
        raise DatasetError(
            f"{file}: none of the {len(paths)} images of '{split}' has a label file; looked for "
            f"{label_path(paths[0], places)}, ...; put them there, or export the dataset again"
        )
    if boxes and boxes == len(objects.ids):
        raise DatasetError(
            f"{first_box}: a class and four numbers are a box, and '{split}' holds nothing else; "
            "masks are needed: export the dataset for instance segmentation"
        )
    packed, left_out = pack(
        images, objects, flat(objects.images, np.int64), flat(objects.categories, np.int64)
    )
    notes = []
    if unlabelled and not bare:
        notes.append(
            f"{len(unlabelled)} of {len(paths)} images of '{split}' have no label file (first "
            f"{unlabelled[0]}): taken as showing nothing"
        )
    if boxes:
        notes.append(
            f"{boxes} of {len(objects.ids)} objects of '{split}' are boxes and were taken for "
            f"rectangular masks (first {first_box})"
        )
    if twice:
        notes.append(f"'{split}' lists {shown(twice)} more than once; each is taken once")
    return Contents(
        packed=packed,
        classes=tuple(names.values()),
        category_ids=tuple(names),
        left_out=tuple(left_out),
        notes=tuple(notes),
    )


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


def _read_yaml(file: Path) -> Mapping[str, object]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DatasetError(f"{file}: cannot be read as YAML ({error}); correct it") from error
    if not isinstance(content, dict):
        raise DatasetError(f"{file}: expected 'names', 'train' and 'val'; it holds no such keys")
    return content


def _existing(file: Path, content: Mapping[str, object], split: str, value: object) -> list[Path]:
    """What exists of a split's entries, looked for where exports put it."""
    entries = value if isinstance(value, list) else [] if value is None else [value]
    for entry in (content.get("path") or "", *entries):
        if not isinstance(entry, str):
            raise DatasetError(
                f"{file}: '{split}' or 'path' holds {entry!r}; allowed are a folder, a .txt file "
                "that lists images, or a list of them"
            )
    roots = _bases(file, content)
    found, missing = [], []
    for entry in map(str, entries):
        names = (entry, entry.removeprefix("../"))  # Roboflow: ../train/images for train/images
        places = [place / name for place in roots for name in names]
        there = [p for p in places if p.is_dir() or (p.suffix == ".txt" and p.is_file())]
        found += there[:1]
        missing += [] if there else [entry]
    if found and missing:
        raise DatasetError(
            f"{file}: {missing[0]!r} of '{split}' is no folder and no .txt file below "
            f"{roots[0]}; correct the entry or remove it"
        )
    return found


def bases(file: Path) -> list[Path]:
    """The folders that a data.yaml's paths may refer to, absolute."""
    return [place.absolute() for place in _bases(file, _read_yaml(file))]


def _bases(file: Path, content: Mapping[str, object]) -> list[Path]:
    """What a path in the file may refer to.

    Its `path` may start at the file, at the folder above (as in Ultralytics' own), or be of another
    machine.
    """
    home, path = file.parent, str(content.get("path") or "")
    return [home / path, home.absolute().parent / path, home] if path else [home]


def _names(file: Path) -> dict[int, str]:
    """Class names by number, ascending."""
    content = _read_yaml(file)
    given, count = content.get("names"), content.get("nc")
    pairs = enumerate(given) if isinstance(given, list) else ()
    names = dict(given if isinstance(given, dict) else pairs)
    numbers = [number for number in names if type(number) is int and number >= 0]
    if not names or len(numbers) < len(names):
        raise DatasetError(
            f"{file}: 'names' is {given!r}; give a list of class names, or numbers with names"
        )
    texts = [str(names[number]) for number in sorted(names)]
    twice = [text for text in dict.fromkeys(texts) if texts.count(text) > 1]
    if twice:
        raise DatasetError(f"{file}: 'names' holds {shown(twice)} more than once; rename one")
    if count is not None and count != len(names):
        raise DatasetError(f"{file}: 'nc' is {count}, 'names' holds {len(names)}; correct one")
    return dict(zip(sorted(names), texts, strict=True))


def state(file: Path, split: str) -> str:
    """Changes with the data.yaml, the images and their label files."""
    digest = hashlib.sha256(file.read_bytes())
    places = bases(file)
    for image in images_of(file, split)[0]:
        for path in (image, label_path(image, places)):
            try:
                status = path.stat()
            except FileNotFoundError:
                digest.update(f"{path}\0".encode(errors="surrogateescape"))
            else:
                line = f"{path} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}\0"
                digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


def images_of(file: Path, split: str) -> tuple[list[Path], list[str]]:
    """The images of a split, and names that stand there twice."""
    places = bases(file)
    found: list[Path] = []
    for source in sources(file)[split]:
        if source.is_dir():
            try:
                found += list_images([source])
            except ImageReadError as error:
                raise DatasetError(f"{file}: '{split}': {error}") from error
        else:
            found += _listed(source, places)
    counts = Counter(found)
    return list(counts), [path.name for path, count in counts.items() if count > 1]


def _listed(source: Path, bases: Sequence[Path]) -> Iterable[Path]:
    """The images that a text file lists, one a line."""
    try:
        lines = source.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{source}: cannot be read ({error}); correct it") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        places = [place / line.strip() for place in (source.parent, *bases)]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise DatasetError(
                f"{source}, line {number}: {line.strip()} is missing on disk (looked for "
                f"{shown(dict.fromkeys(map(str, places)))}); put it there"
            )
        yield path


def _size(path: Path) -> tuple[int, int]:
    """Height and width, EXIF rotation applied."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(ExifTags.Base.Orientation) in _TURNED
    except Exception as error:  # Pillow's decoders raise nearly everything on damaged files
        raise DatasetError(f"{path}: cannot be read as an image ({error}); replace it") from error
    return (width, height) if turned else (height, width)


def _labels(file: Path) -> str | None:
    """None where there is no such file."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{file}: cannot be read ({error}); correct it") from error


def _numbers(line: str, where: str) -> tuple[int, list[float]]:
    """Class and coordinates."""
    try:
        first, *values = map(float, line.split())
    except ValueError as error:
        raise DatasetError(f"{where}: {line.strip()[:60]!r} are no numbers; correct it") from error
    if not first.is_integer() or len(values) % 2 or not values:
        raise DatasetError(
            f"{where}: {len(values) + 1} numbers, the first {first:g}; allowed is a class number "
            "and x1 y1 x2 y2 ...: correct it"
        )
    outside = [v for v in values if not -_OVERSHOOT <= v <= 1 + _OVERSHOOT or math.isnan(v)]
    if outside:
        raise DatasetError(
            f"{where}: {outside[0]:g} is outside the image; coordinates are shares of its width "
            "and height, 0 to 1: export the labels again"
        )
    return int(first), values


def _rectangle(box: Sequence[float]) -> list[float]:
    """The corners of a box given by its centre and its sides."""
    x, y, width, height = box
    left, right, top, bottom = x - width / 2, x + width / 2, y - height / 2, y + height / 2
    return [left, top, right, top, right, bottom, left, bottom]
