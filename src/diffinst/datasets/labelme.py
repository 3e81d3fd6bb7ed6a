"""Reads folders of LabelMe's files, one json for each image, as entries of a COCO file."""

from __future__ import annotations

import base64
import io
import json
import math
import os
import reprlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from diffinst.datasets.coco_entries import is_number
from diffinst.datasets.problems import Place, Problems
from diffinst.datasets.segmentation import RLE, placed
from diffinst.datasets.shapes import TABLES, Listed, Numbered, Shape, ellipse, usable
from diffinst.io.regular import check_regular

_BACKGROUND = ("__ignore__", "_background_")  # of LabelMe's lists of labels
_REMEDY = "correct this shape in LabelMe"


def is_labelme(file: Path) -> bool:
    """Whether a json is one of LabelMe's."""
    content = _read(file)
    return isinstance(content, dict) and "shapes" in content and "imagePath" in content


def entries(folder: Path, problems: Problems) -> Iterator[Listed]:
    """Go through the files of a folder by name; those of other kinds are passed over.

    Polygons of one group are one object; masks keep their pixels, circles become polygons.
    Rectangles, and shapes that enclose nothing, are objects with an empty segmentation. Classes
    are all labels, by name, of this folder and of those beside it, so that splits have the same.

    Args:
        folder: With the json files.
        problems: Gets what is wrong with files and shapes.
    """
    labels = {
        label for beside in _beside(folder) for file in _jsons(beside) for label in _labels(file)
    }
    names = sorted(labels.difference(_BACKGROUND))
    numbered = Numbered({name: number for number, name in enumerate(names, start=1)})
    yield from ((table, -1, None) for table in TABLES)
    for file in _jsons(folder):
        content = _read(file)
        if isinstance(content, str):
            place = Place(file_name=file.name)
            problems.note("broken-file", place, where=str(file), problem=f"{file.name} {content}")
        elif "shapes" in content and "imagePath" in content:
            yield from _image(file, content, numbered, problems)
    yield from numbered.categories()


def _beside(folder: Path) -> list[Path]:
    """The folder and, where it is a split of a dataset, those of the others."""
    above = [path for path in folder.parent.iterdir() if path.is_dir() and not path.is_symlink()]
    splits = {"train", "val", "valid", "validation", "test"}
    return [path for path in above if path.name in splits] if folder.name in splits else [folder]


def _jsons(folder: Path) -> list[Path]:
    names = sorted(name for name in os.listdir(folder) if name.endswith(".json"))
    return [folder / name for name in names if not name.startswith(".")]


def _read(file: Path) -> dict[str, object] | str:
    """The content; a text says why there is none."""
    try:
        check_regular(file)
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        return f"cannot be read ({error.strerror}); check the file"
    except (ValueError, RecursionError) as error:
        return f"is broken JSON ({error}); save it in LabelMe again"
    return content if isinstance(content, dict) else {}


def _shapes(content: dict[str, object]) -> list[object]:
    listed = content.get("shapes")
    return listed if isinstance(listed, list) else []


def _labels(file: Path) -> set[str]:
    content = _read(file)
    shapes = [] if isinstance(content, str) else _shapes(content)
    return {_label(shape) for shape in shapes if isinstance(shape, dict)}


def _label(shape: dict[str, object]) -> str:
    return str(shape.get("label", ""))


def _image(
    file: Path, content: dict[str, object], numbered: Numbered, problems: Problems
) -> Iterator[Listed]:
    height, width = content.get("imageHeight"), content.get("imageWidth")
    yield numbered.image(content["imagePath"], height, width)
    shapes = []
    for position, one in enumerate(_shapes(content), start=1):
        try:
            if isinstance(one, dict) and _label(one) in _BACKGROUND:
                continue
            shapes.append(_shape(one, usable(height, width)))
        except ValueError as error:
            where = f"{file.name}, shape {position}"
            problems.note(
                "annotation-entry",
                Place(numbered.images, file.name),
                where=where,
                problem=str(error),
                remedy=_REMEDY,
                fields=f"shape {position}: {error}",
            )
    yield from numbered.shapes(shapes)


def _shape(shape: object, size: tuple[int, int] | None) -> Shape:
    """One shape.

    Raises:
        ValueError: It lacks something, or something is not what it should be.
    """
    if not isinstance(shape, dict):
        raise ValueError(f"{reprlib.repr(shape)} is no shape")
    label, group, points = _label(shape), shape.get("group_id"), _points(shape.get("points"))
    ends = points[:2]
    match shape.get("shape_type", "polygon"):
        case "polygon" | None:
            numbers = [number for point in points for number in point]
            return Shape(label, [numbers], None, "" if group is None else str(group))
        case "circle" if len(ends) == 2:
            radius = math.dist(ends[0], ends[1])
            return Shape(label, [ellipse(*ends[0], radius, radius)])
        case "rectangle" if len(ends) == 2:
            return Shape(label, [], _box(ends))
        case "mask" if len(ends) == 2:
            left, top = (round(number) for number in _box(ends)[:2])
            if size is None:
                return Shape(label, [])
            return Shape(label, _mask(shape.get("mask"), left, top, *size), _box(ends))
        case "circle" | "rectangle" | "mask":
            raise ValueError(f"it has {len(ends)} points, 2 are needed")
        case _:
            return Shape(label, [])


def _points(value: object) -> list[tuple[float, float]]:
    points: list[tuple[float, float]] = []
    for point in value if isinstance(value, list) else [value]:
        if not (isinstance(point, list) and len(point) == 2 and all(map(is_number, point))):
            raise ValueError(f"its point {reprlib.repr(point)} is not [x, y] in numbers")
        points.append((float(point[0]), float(point[1])))
    return points


def _box(ends: list[tuple[float, float]]) -> tuple[float, float, float, float]:
    (x0, y0), (x1, y1) = ends
    return min(x0, x1), min(y0, y1), abs(x1 - x0), abs(y1 - y0)


def _mask(code: object, left: int, top: int, rows: int, columns: int) -> RLE:
    """A PNG in base 64 whose first pixel lies where the box begins."""
    try:
        content = base64.b64decode(code if isinstance(code, str) else "", validate=True)
        with Image.open(io.BytesIO(content)) as png:
            pixels = np.asarray(png.convert("L")) > 0
    except Exception as error:  # Pillow's decoders raise nearly everything on damaged files
        raise ValueError(f"its mask is no PNG ({error})") from error
    height, width = pixels.shape
    if min(left, top) < 0 or left + width > columns or top + height > rows:
        raise ValueError(f"its mask, {width} x {height} at {left}, {top}, leaves the image")
    return placed(pixels, top, left, (rows, columns))
