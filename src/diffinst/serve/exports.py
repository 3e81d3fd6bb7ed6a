"""A session's objects in the files of other tools, written by what `predict --as` writes with."""

from __future__ import annotations

import io
import re
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image

from diffinst.results.formats.choose import write_one
from diffinst.results.formats.coco import CocoFile
from diffinst.results.formats.scene import Scene
from diffinst.results.formats.yolo import YoloFolder
from diffinst.results.instances import Instances
from diffinst.serve.objects import instances_of
from diffinst.serve.refusal import Refused
from diffinst.serve.sessions import About
from diffinst.serve.work import Object

Format: TypeAlias = Literal["coco", "labels", "yolo", "geojson"]
MOST_LABELS = 65_535  # that 16 bits count


def exported(
    kind: Format, about: About, objects: Sequence[Object], names: tuple[str, ...], file: Path
) -> tuple[bytes, str, str]:
    """A file's content, its name and its media type. Objects without pixels are left out.

    Args:
        kind: Of the file.
        about: The image.
        objects: On it, those that are to be in the file.
        names: The classes.
        file: The image's pixels as PNG, for what holds the image itself.

    Raises:
        Refused: More objects than the format counts.
    """
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", about.name.rsplit(".", 1)[0]).strip("_") or "image"
    found = instances_of(objects, about.size, names)
    with tempfile.TemporaryDirectory(prefix="diffinst-export-") as temporary:
        folder = Path(temporary)
        match kind:
            case "coco":
                path = folder / f"{stem}_coco.json"
                write_coco(path, [(about.name, found)], names)
                return path.read_bytes(), path.name, "application/json"
            case "geojson":
                path = folder / f"{stem}.geojson"
                write_one(found, path, kind)
                return path.read_bytes(), path.name, "application/geo+json"
            case "labels":
                return _labels(found), f"{stem}_labels.png", "image/png"
            case "yolo":
                dataset = YoloFolder(folder, names)
                dataset.add(Scene(replace(found, path=file), stem, f"{stem}.png"))
                dataset.finish()
                return _zipped(folder), f"{stem}_yolo.zip", "application/zip"


def write_coco(path: Path, images: Sequence[tuple[str, Instances]], names: tuple[str, ...]) -> None:
    """Write a dataset as `diffinst train` and other tools read it, with scores.

    Args:
        path: The json.
        images: The file name of each, and its objects.
        names: The classes.
    """
    dataset = CocoFile(path, names)
    for i, (name, found) in enumerate(images, start=1):
        dataset.add(Scene(found, name, name, image_id=i))
    dataset.finish()


def _labels(found: Instances) -> bytes:
    if len(found) > MOST_LABELS:
        raise Refused(422, f"a label map counts {MOST_LABELS} objects, here are {len(found)}")
    png = io.BytesIO()
    Image.fromarray(found.to_label_map().astype(np.uint16)).save(png, format="PNG")
    return png.getvalue()


def _zipped(folder: Path) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                file.write(path, path.relative_to(folder).as_posix())
    return content.getvalue()
