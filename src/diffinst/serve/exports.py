"""A session's objects in the files of other tools: COCO, YOLO, GeoJSON, a label map."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from diffinst.serve.objects import instances_of
from diffinst.serve.outline import polygons
from diffinst.serve.refusal import Refused
from diffinst.serve.sessions import About
from diffinst.serve.work import Object

Format: TypeAlias = Literal["coco", "labels", "yolo", "geojson"]
MOST_LABELS = 65_535  # that 16 bits count


def exported(
    kind: Format, about: About, objects: Sequence[Object], names: tuple[str, ...], png: bytes
) -> tuple[bytes, str, str]:
    """A file's content, its name and its media type.

    Args:
        kind: Of the file.
        about: The image.
        objects: On it, those that are to be in the file.
        names: The classes.
        png: The image's pixels, for what holds the image itself.

    Raises:
        Refused: More objects than the format counts.
    """
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", about.name.rsplit(".", 1)[0]).strip("_") or "image"
    match kind:
        case "coco":
            content = _json(coco([(about, objects)], names))
            return content, f"{stem}_coco.json", "application/json"
        case "geojson":
            text = _json(_geojson(about, objects, names))
            return text, f"{stem}.geojson", "application/geo+json"
        case "labels":
            return _labels(about, objects, names), f"{stem}_labels.png", "image/png"
        case "yolo":
            return _yolo(about, objects, names, stem, png), f"{stem}_yolo.zip", "application/zip"


def _json(values: object) -> bytes:
    return json.dumps(values, ensure_ascii=False, allow_nan=False).encode()


def coco(
    images: Sequence[tuple[About, Sequence[Object]]], names: tuple[str, ...]
) -> dict[str, object]:
    """A dataset as `diffinst train` and other tools read it, with scores.

    Args:
        images: Each with its objects; their names are the file names.
        names: The classes.
    """
    objects = [(i, one) for i, (_, found) in enumerate(images, start=1) for one in found]
    return {
        "images": [
            {"id": i, "file_name": about.name, "width": about.width, "height": about.height}
            for i, (about, _) in enumerate(images, start=1)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names, start=1)],
        "annotations": [
            {
                "id": i,
                "image_id": image,
                "category_id": one.label + 1,
                "bbox": coco_mask.toBbox(one.rle).tolist(),
                "area": one.area,
                "segmentation": one.rle,
                "iscrowd": 0,
                "score": one.score,
            }
            for i, (image, one) in enumerate(objects, start=1)
        ],
    }


def _geojson(about: About, objects: Sequence[Object], names: tuple[str, ...]) -> dict[str, object]:
    """Polygons in pixels of the image, y downwards, as QuPath reads them."""
    features = []
    for one in objects:
        pieces = polygons(coco_mask.decode(one.rle).astype(bool))
        closed = [[[*ring, ring[0]] for ring in piece] for piece in pieces]
        features.append(
            {
                "type": "Feature",
                "geometry": {"type": "MultiPolygon", "coordinates": closed},
                "properties": {
                    "objectType": "annotation",
                    "classification": {"name": names[one.label]},
                    "score": one.score,
                    "area": one.area,
                },
            }
        )
    return {"type": "FeatureCollection", "features": features}


def _labels(about: About, objects: Sequence[Object], names: tuple[str, ...]) -> bytes:
    if len(objects) > MOST_LABELS:
        raise Refused(422, f"a label map counts {MOST_LABELS} objects, here are {len(objects)}")
    found = instances_of(objects, (about.height, about.width), names)
    png = io.BytesIO()
    Image.fromarray(found.to_label_map().astype(np.uint16)).save(png, format="PNG")
    return png.getvalue()


def _yolo(
    about: About, objects: Sequence[Object], names: tuple[str, ...], stem: str, png: bytes
) -> bytes:
    """A folder to train on: data.yaml, the image, polygons; of each object the largest piece."""
    lines = []
    for one in objects:
        pieces = polygons(coco_mask.decode(one.rle).astype(bool))
        if pieces:
            at = (f"{x / about.width:.6f} {y / about.height:.6f}" for x, y in pieces[0][0])
            lines.append(f"{one.label} {' '.join(at)}\n")
    listed = "".join(f"  {i}: {json.dumps(name)}\n" for i, name in enumerate(names))
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("data.yaml", f"path: .\ntrain: images/train\nnames:\n{listed}")
        file.writestr(f"images/train/{stem}.png", png)
        file.writestr(f"labels/train/{stem}.txt", "".join(lines))
    return content.getvalue()
