"""Writes ImageJ's RoiSet.zip: one region for each object of an image."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diffinst.io.atomic import write_bytes
from diffinst.results.convert import noted
from diffinst.results.formats.scene import Scene, missing
from diffinst.results.outlines import Ring, polygons

if TYPE_CHECKING:
    from roifile import ImagejRoi

VERSION = 228  # of the regions: the first with groups


def need_roifile() -> None:
    """Refuse to begin without the package.

    Raises:
        ValueError: Says what to install.
    """
    try:
        import roifile  # noqa: F401
    except ImportError as error:
        raise missing("imagej", "roifile", "imagej") from error


def write_file(scene: Scene, path: Path) -> None:
    """Write the regions of an image, in the order of the result.

    Lines follow the edges of the pixels, as ImageJ's wand does, so that the region holds the very
    pixels. A mask of several parts, or with holes, is a composite region. The class is in the name
    and is the group (from 1). Score and optional fields are properties. Objects without pixels are
    left out.
    """
    need_roifile()
    found = scene.found
    content = io.BytesIO()
    scores, labels, others = found.scores.tolist(), found.labels.tolist(), noted(found)
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for i, ((y, x), mask) in enumerate(found.mask_crops.placed()):
            rings = [ring for part in polygons(mask, y, x) for ring in part]
            if not rings:
                continue
            name = f"{i + 1:04d}-{_plain(found.class_names[labels[i]])}"
            region = _region(rings)
            region.name, region.version = name, VERSION
            region.group = min(labels[i] + 1, 255)
            region.props = f"score: {scores[i]:.4f}\n" + "".join(
                f"{key}: {round(value, 4)}\n" for key, value in others[i].items()
            )
            archive.writestr(zipfile.ZipInfo(f"{name}.roi"), region.tobytes())
    write_bytes(path, content.getvalue())


def _region(rings: list[Ring]) -> ImagejRoi:
    from roifile import ROI_TYPE, ImagejRoi

    points = np.array([point for ring in rings for point in ring])
    region: ImagejRoi
    if len(rings) == 1:
        region = ImagejRoi.frompoints(points[:-1])
        region.roitype = ROI_TYPE.TRACED
    else:
        path = [number for ring in rings for number in _drawn(ring)]
        region = ImagejRoi()
        region.roitype = ROI_TYPE.RECT
        region.multi_coordinates = np.array(path, np.float32)
        region.shape_roi_size = len(path)
    region.left, region.top = (int(v) for v in points.min(axis=0))
    region.right, region.bottom = (int(v) for v in points.max(axis=0))
    return region


def _drawn(ring: Ring) -> list[int]:
    """A ring as ImageJ's shapes have it: 0 moves to a point, 1 draws to it, 4 closes."""
    (x, y), *others = ring[:-1]
    return [0, x, y, *(number for px, py in others for number in (1, px, py)), 4]


def _plain(name: str) -> str:
    """A class name as a part of a file's name."""
    return "".join("_" if c in '/\\:*?"<>|' or not c.isprintable() else c for c in name)
