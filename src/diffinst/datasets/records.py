"""One annotated image and its objects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffinst.datasets.segmentation import Segmentation


@dataclass(frozen=True, slots=True)
class Annotation:
    """One object.

    Attributes:
        id: As in the file, unique there.
        box: xyxy pixels, clipped to the image, with an area.
        label: 0-based index into `Split.classes`.
        segmentation: RLE of the image's size, or polygons [x1, y1, x2, y2, ...] in pixels of
            three points or more; `rasterize` turns it into a mask.
        crowd: Marks a group of objects, not one.
        area: Square pixels, as the file says (counted where it does not).
    """

    id: int
    box: tuple[float, float, float, float]
    label: int
    segmentation: Segmentation
    crowd: bool
    area: float


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image and its objects (possibly none), in the order of the file.

    Attributes:
        id: As in the file, unique there.
        path: Of the image.
        height: Pixels, EXIF rotation applied.
        width: Pixels, EXIF rotation applied.
        annotations: Its objects.
        negative: Labels known to be absent (LVIS; only these and the annotated ones count there).
        not_exhaustive: Labels of which not every object is annotated (LVIS).
    """

    id: int
    path: Path
    height: int
    width: int
    annotations: tuple[Annotation, ...]
    negative: tuple[int, ...] = ()
    not_exhaustive: tuple[int, ...] = ()
