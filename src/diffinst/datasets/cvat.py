"""Reads CVAT's XML ("CVAT for images 1.1") as entries of a COCO file."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from xml.etree import ElementTree

import numpy as np

from diffinst.datasets.problems import DatasetError, Place, Problems
from diffinst.datasets.segmentation import RLE, placed
from diffinst.datasets.shapes import TABLES, Listed, Numbered, Shape, ellipse, usable
from diffinst.io.regular import check_regular

_SHAPES = {"polygon", "mask", "box", "ellipse", "polyline", "points", "cuboid", "skeleton"}
_REMEDY = "correct this shape, or export the file again"


def entries(file: Path, problems: Problems) -> Iterator[Listed]:
    """Go through a file, image by image, in little memory.

    Polygons of one group are one object; masks keep their pixels, ellipses become polygons.
    Boxes, and shapes that enclose nothing, are objects with an empty segmentation. Tags are passed
    over.

    Args:
        file: The XML.
        problems: Gets what is wrong with single shapes.

    Raises:
        DatasetError: It cannot be read, is no such XML, or holds several subsets.
    """
    numbered = Numbered()
    yield from ((table, -1, None) for table in TABLES)
    subsets: set[str] = set()
    try:
        check_regular(file)
        for element in _elements(file):
            name = element.findtext("name")
            if element.tag == "label" and name and element.find("parent") is None:
                numbered.classes.setdefault(name, len(numbered.classes) + 1)
            elif element.tag == "image":
                subsets.add(element.get("subset", ""))
                yield from _image(element, numbered, problems)
            elif element.tag == "track":
                raise _broken(file, "it is of a video ('CVAT for video'); export it for images")
            if len(subsets) > 1:
                names = ", ".join(sorted(subsets))
                message = f"it holds several subsets ({names}); export each by itself, as S.xml"
                raise _broken(file, message)
    except OSError as error:
        raise _broken(file, f"cannot be read ({error.strerror}); check the file") from error
    yield from numbered.categories()


def _broken(file: Path, problem: str) -> DatasetError:
    return DatasetError(f"{file}: {problem}", "broken-file")


def _elements(file: Path) -> Iterator[ElementTree.Element]:
    """The labels, images and tracks, each with all that is in it."""
    with file.open("rb") as source:
        steps = _steps(file, source)
        _, root = next(steps)
        if root.tag != "annotations":
            message = f"it starts with <{root.tag[:40]}>, 'CVAT for images 1.1' with <annotations>"
            raise _broken(file, message)
        for event, element in steps:
            if event == "end" and element.tag in ("label", "image", "track"):
                yield element
                if element.tag != "label":
                    root.clear()  # what was read can go


def _steps(file: Path, source: BinaryIO) -> Iterator[tuple[str, ElementTree.Element]]:
    try:
        yield from ElementTree.iterparse(source, ("start", "end"))
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # also of odd encodings
        raise _broken(file, f"broken XML ({error}); copy or export it again") from error


def _image(image: ElementTree.Element, numbered: Numbered, problems: Problems) -> Iterator[Listed]:
    name, subset = image.get("name", ""), image.get("subset")
    height, width = _whole(image.get("height")), _whole(image.get("width"))
    yield numbered.image(name, height, width, f"{subset}/{name}" if subset else "")
    shapes = []
    for element in image:
        if element.tag not in _SHAPES:
            continue
        try:
            shapes.append(_shape(element, usable(height, width)))
        except ValueError as error:
            where = f"image {numbered.images} ({name}), {element.tag} {len(shapes) + 1}"
            problems.note(
                "annotation-entry",
                Place(numbered.images, name),
                where=where,
                problem=str(error),
                remedy=_REMEDY,
                fields=f"{element.tag}: {error}",
            )
    yield from numbered.shapes(shapes)


def _whole(text: str | None) -> object:
    """A number, where it is one; else it is refused as it stands."""
    return int(text) if text and text.isdecimal() and len(text) < 20 else text


def _shape(element: ElementTree.Element, size: tuple[int, int] | None) -> Shape:
    """One shape.

    Raises:
        ValueError: Some attribute is missing, or is not what it should be.
    """
    label, group = element.get("label", ""), element.get("group_id", "0")
    match element.tag:
        case "polygon":
            points = element.get("points", "").replace(";", ",")
            return Shape(label, [_numbers(points)], None, "" if group == "0" else group)
        case "ellipse":
            x, y, across, along = (_number(element, key) for key in ("cx", "cy", "rx", "ry"))
            turned = _number(element, "rotation") if element.get("rotation") else 0.0
            return Shape(label, [ellipse(x, y, across, along, turned)])
        case "box":
            x0, y0, x1, y1 = (_number(element, key) for key in ("xtl", "ytl", "xbr", "ybr"))
            return Shape(label, [], (x0, y0, x1 - x0, y1 - y0))
        case "mask":
            return Shape(label, _mask(element, *size) if size else [])
        case _:
            return Shape(label, [])


def _mask(element: ElementTree.Element, rows: int, columns: int) -> RLE:
    """Run lengths along the rows of a box, background first."""
    left, top, width, height = (
        int(_number(element, key)) for key in ("left", "top", "width", "height")
    )
    runs = np.array(_numbers(element.get("rle", "")), np.float64)
    if min(left, top, width, height) < 0 or left + width > columns or top + height > rows:
        raise ValueError(f"the mask's box, {width} x {height} at {left}, {top}, leaves the image")
    if (runs < 0).any() or runs.sum() != width * height:
        given = f"{runs.sum():g} pixels, its box has {width} x {height}"
        raise ValueError(f"its RLE covers {given}")
    pixels = np.repeat(np.arange(len(runs)) % 2 == 1, runs.astype(np.int64))
    return placed(pixels.reshape(height, width), top, left, (rows, columns))


def _numbers(text: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise ValueError(f"{reprlib.repr(text)} are no numbers") from None


def _number(element: ElementTree.Element, key: str) -> float:
    text = element.get(key, "")
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{key} is {reprlib.repr(text)}, no number") from None
    if not abs(number) < 1e9:  # NaN, too
        raise ValueError(f"{key} is {text}, no pixels of an image")
    return number
