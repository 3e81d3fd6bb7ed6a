"""Makes entries of a COCO file of what other annotation tools draw.

Readers of such tools hand these entries to `coco.scan`, so that one place checks them. Images and
objects are numbered in their order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from diffinst.datasets.segmentation import RLE
from diffinst.io import images

Listed: TypeAlias = tuple[str, int, object]
"""Table, position (-1 at its beginning), entry; as `json_stream.entries` gives them."""

TABLES = ("images", "annotations", "categories")
_CORNERS = 48  # of the polygon that stands for an ellipse: it covers 99.7 % of it


@dataclass(frozen=True)
class Shape:
    """One shape.

    Attributes:
        label: Name of its class.
        segmentation: Polygons, RLE, or nothing where a shape encloses no pixels or is a box.
        box: x, y, width, height of a box.
        group: Polygons of one group (and class) are parts of one object; empty: of none.
    """

    label: str
    segmentation: list[list[float]] | RLE
    box: Sequence[float] | None = None
    group: str = ""


@dataclass
class Numbered:
    """Gives images, objects and classes their ids.

    Attributes:
        classes: Ids by name, those known beforehand.
        images: How many there were.
        objects: How many there were.
    """

    classes: dict[str, int] = field(default_factory=dict)
    images: int = 0
    objects: int = 0

    def image(self, file_name: object, height: object, width: object, other: str = "") -> Listed:
        """An entry of 'images'; `other` is a folder and a name where else its file may be."""
        self.images += 1
        entry = {"id": self.images, "file_name": file_name, "height": height, "width": width}
        return "images", self.images - 1, {**entry, "coco_url": other}

    def shapes(self, shapes: Iterable[Shape]) -> Iterator[Listed]:
        """Entries of 'annotations': the objects of the last image."""
        for shape in _grouped(shapes):
            self.objects += 1
            entry: dict[str, object] = {
                "id": self.objects,
                "image_id": self.images,
                "category_id": self.classes.setdefault(shape.label, len(self.classes) + 1),
                "segmentation": shape.segmentation,
            }
            entry |= {} if shape.box is None else {"bbox": list(shape.box)}
            yield "annotations", self.objects - 1, entry

    def categories(self) -> Iterator[Listed]:
        """Entries of 'categories'."""
        for position, (name, number) in enumerate(self.classes.items()):
            yield "categories", position, {"id": number, "name": name}


def _grouped(shapes: Iterable[Shape]) -> list[Shape]:
    """Polygons of one group become one shape, in the place of the first."""
    found: dict[object, Shape] = {}
    for position, shape in enumerate(shapes):
        parts = shape.segmentation
        together = shape.group and isinstance(parts, list) and parts
        key: object = (shape.label, shape.group) if together else position
        first = found.get(key)
        if first is not None and isinstance(first.segmentation, list) and isinstance(parts, list):
            shape = Shape(shape.label, first.segmentation + parts, None, shape.group)
        found[key] = shape
    return list(found.values())


def usable(height: object, width: object) -> tuple[int, int] | None:
    """The size of an image whose entry is not refused for it."""
    if not (isinstance(height, int) and isinstance(width, int)):
        return None
    return (height, width) if height * width <= images.MAX_PIXELS else None


def ellipse(x: float, y: float, across: float, along: float, degrees: float = 0) -> list[float]:
    """A polygon for an ellipse: centre, half axes, turned clockwise; for a circle likewise."""
    turn = math.radians(degrees)
    polygon: list[float] = []
    for corner in range(_CORNERS):
        angle = 2 * math.pi * corner / _CORNERS
        dx, dy = across * math.cos(angle), along * math.sin(angle)
        polygon.append(x + dx * math.cos(turn) - dy * math.sin(turn))
        polygon.append(y + dx * math.sin(turn) + dy * math.cos(turn))
    return polygon
