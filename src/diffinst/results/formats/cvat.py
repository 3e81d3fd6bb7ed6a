"""Writes CVAT's XML ("CVAT for images 1.1"): all images in one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from diffinst.io.atomic import atomic_path
from diffinst.results.formats.polygons import parts
from diffinst.results.formats.scene import Scene
from diffinst.results.formats.spool import Spool


class CvatFile:
    """One XML for all images.

    A mask is a polygon for each part, those of one object in one group; with a hole it is a <mask>
    (CVAT 2.3 and later), which keeps its pixels. Objects without pixels are left out, and scores.

    Args:
        path: The XML.
        class_names: The labels.
    """

    def __init__(self, path: Path, class_names: Sequence[str]) -> None:
        self.path, self.class_names = path, tuple(class_names)
        self._images = Spool(path.parent)

    def add(self, scene: Scene) -> None:
        """Append an image."""
        height, width = scene.found.image_size
        image = ElementTree.Element(
            "image",
            id=str(scene.image_id - 1),
            name=_allowed(scene.file_name),
            width=str(width),
            height=str(height),
        )
        labels = scene.found.labels.tolist()
        for i, ((y, x), mask) in enumerate(scene.found.mask_crops.placed()):
            _draw(image, self.class_names[labels[i]], i + 1, mask, (y, x))
        self._images.add(_text(image))

    def finish(self) -> None:
        """Write the file."""
        labels = ElementTree.Element("labels")
        for name in self.class_names:
            label = ElementTree.SubElement(labels, "label")
            ElementTree.SubElement(label, "name").text = _allowed(name)
        with atomic_path(self.path) as temporary, open(temporary, "wb") as out:
            out.write(b'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n')
            out.write(b"<version>1.1</version>\n<meta><task>\n")
            out.write(f"{_text(labels)}</task></meta>\n".encode())
            self._images.copy_to(out)
            out.write(b"</annotations>\n")


def _draw(
    image: ElementTree.Element, name: str, group: int, mask: NDArray[np.bool_], at: tuple[int, int]
) -> None:
    """The shapes of one object, its mask lying at (y, x)."""
    (y, x), pieces = at, parts(mask, *at)
    about = {"label": _allowed(name), "source": "auto", "occluded": "0", "z_order": "0"}
    if any(len(piece) > 1 for piece in pieces):
        height, width = mask.shape
        edges = np.flatnonzero(np.diff(mask.ravel(), prepend=False))  # starts with background
        runs = np.diff(edges, prepend=0, append=mask.size)
        place = {"left": x, "top": y, "width": width, "height": height}
        rle = ", ".join(map(str, runs.tolist()))
        where = {key: str(value) for key, value in place.items()}
        ElementTree.SubElement(image, "mask", {**about, "rle": rle, **where})
        return
    for (line,) in pieces:
        shape = {**about, "points": ";".join(f"{px:.2f},{py:.2f}" for px, py in line)}
        if len(pieces) > 1:
            shape["group_id"] = str(group)
        ElementTree.SubElement(image, "polygon", shape)


def _text(element: ElementTree.Element) -> str:
    ElementTree.indent(element, " ")
    return ElementTree.tostring(element, encoding="unicode") + "\n"


def _allowed(text: str) -> str:
    """Without what XML has no form for: control characters, halves of surrogates."""
    return "".join(
        c if " " <= c < "\ud800" or "\udfff" < c < "\ufffe" or c > "\uffff" else "_" for c in text
    )
