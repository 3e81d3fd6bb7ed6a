"""Writes LabelMe's files: one json for each image, with the image beside."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffinst.io.atomic import write_json
from diffinst.results.formats.polygons import parts
from diffinst.results.formats.scene import Scene, place_image

VERSION = "5.5.0"  # of LabelMe; masks are there from 5.3 on


def write_with_image(scene: Scene, path: Path) -> None:
    """Write an image's json, and put the image beside, where LabelMe looks for it."""
    _write(scene, path, place_image(scene, path.parent))


def write_file(scene: Scene, path: Path) -> None:
    """Write an image's json only."""
    _write(scene, path, scene.file_name)


def _write(scene: Scene, path: Path, image_path: str) -> None:
    height, width = scene.found.image_size
    write_json(
        path,
        {
            "version": VERSION,
            "flags": {},
            "shapes": _shapes(scene),
            "imagePath": image_path,
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        },
    )


def _shapes(scene: Scene) -> list[dict[str, object]]:
    """A polygon for each part of a mask, those of one object in one group.

    A mask with a hole is a shape of the type "mask", which keeps its pixels.
    """
    found = scene.found
    shapes: list[dict[str, object]] = []
    scores, labels = found.scores.tolist(), found.labels.tolist()
    for i, ((y, x), mask) in enumerate(found.mask_crops.placed()):
        pieces = parts(mask, y, x)
        about = {
            "label": found.class_names[labels[i]],
            "group_id": i + 1 if len(pieces) > 1 else None,
            "description": "",
            "flags": {},
            "score": scores[i],
        }
        if any(len(piece) > 1 for piece in pieces):
            shapes.append({**about, "group_id": None, **_mask(mask, y, x)})
            continue
        for (line,) in pieces:
            points = [list(point) for point in line]
            shapes.append({**about, "points": points, "shape_type": "polygon", "mask": None})
    return shapes


def _mask(mask: NDArray[np.bool_], y: int, x: int) -> dict[str, object]:
    height, width = mask.shape
    png = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(png, format="PNG")
    return {
        "points": [[float(x), float(y)], [float(x + width - 1), float(y + height - 1)]],
        "shape_type": "mask",
        "mask": base64.b64encode(png.getvalue()).decode("ascii"),
    }
