"""One annotated split in memory: its pictures, their objects, its classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from diffinst.data.segmentation import Segmentation


@dataclass(frozen=True, slots=True)
class Annotation:
    """One object.

    Attributes:
        id: as in the file, unique there.
        box: xyxy pixels, clipped to the picture, with an area.
        label: 0-based index into `Split.classes`.
        segmentation: RLE of the picture's size, or polygons [x1, y1, x2, y2, ...] in pixels of
            three points or more; `rasterize` turns it into a mask.
        crowd: marks a group of objects, not one.
        area: square pixels, as the file says (counted where it does not).
    """

    id: int
    box: tuple[float, float, float, float]
    label: int
    segmentation: Segmentation
    crowd: bool
    area: float


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One picture and its objects (possibly none), in the order of the file.

    Attributes:
        id: as in the file, unique there.
        path: of the picture.
        height: pixels, EXIF rotation applied.
        width: pixels, EXIF rotation applied.
        annotations: its objects.
        negative: labels known to be absent (LVIS; only these and the annotated ones count there).
        not_exhaustive: labels of which not every object is annotated (LVIS).
    """

    id: int
    path: Path
    height: int
    width: int
    annotations: tuple[Annotation, ...]
    negative: tuple[int, ...] = ()
    not_exhaustive: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Split:
    """One split; `classes` and `category_ids` go by label, which ascends with the category id.

    Attributes:
        name: "train", "val", ...
        annotation_file: where it was read from.
        classes: names by label.
        category_ids: the file's ids by label.
        records: the pictures.
        image_dir: the folder they lie in.
        federated: not every class was looked for on every picture (LVIS).
        frequency: "r", "c" or "f" by label (LVIS: rare, common, frequent), or empty.
    """

    name: str
    annotation_file: Path
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    records: Sequence[ImageRecord]
    image_dir: Path
    federated: bool = False
    frequency: tuple[str, ...] = ()

    def merged(self, name: str = "object") -> Split:
        """The same pictures with all classes taken as one."""

        def one(record: ImageRecord) -> ImageRecord:
            annotations = tuple(replace(a, label=0) for a in record.annotations)
            return replace(record, annotations=annotations, negative=(), not_exhaustive=())

        return replace(
            self,
            classes=(name,),
            category_ids=(1,),
            records=tuple(one(r) for r in self.records),
            federated=False,
            frequency=(),
        )

    def as_coco(self) -> dict[str, object]:
        """The split as COCO content: what was left out when it was read is left out here, too."""
        annotations = [
            {
                "id": a.id,
                "image_id": record.id,
                "category_id": self.category_ids[a.label],
                "bbox": [a.box[0], a.box[1], a.box[2] - a.box[0], a.box[3] - a.box[1]],
                "area": a.area,
                "segmentation": a.segmentation,
                "iscrowd": int(a.crowd),
            }
            for record in self.records
            for a in record.annotations
        ]
        return {
            "images": [{"id": r.id, "height": r.height, "width": r.width} for r in self.records],
            "annotations": annotations,
            "categories": [
                {"id": i, "name": name}
                for i, name in zip(self.category_ids, self.classes, strict=True)
            ],
        }
