"""One annotated split: its images, their objects, its classes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt

from diffinst.datasets.packed import PackedRecords
from diffinst.datasets.records import Annotation, ImageRecord

__all__ = ["Annotation", "ImageRecord", "Split", "class_counts", "labels_by_image"]

Entry = dict[str, object]


@dataclass(frozen=True, slots=True)
class Split:
    """One split; `classes` and `category_ids` go by label, which ascends with the category id.

    Attributes:
        name: "train", "val", ...
        annotation_file: Where it was read from.
        classes: Names by label.
        category_ids: The file's ids by label.
        records: The images.
        image_dir: The folder they lie in.
        federated: Not every class was looked for on every image (LVIS).
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
        """The same images with all classes taken as one."""
        return replace(
            self,
            classes=(name,),
            category_ids=(1,),
            records=_merged(self.records),
            federated=False,
            frequency=(),
        )

    def as_coco(self, image_ids: Collection[int] | None = None) -> dict[str, object]:
        """The split as COCO content: what was left out when it was read is left out here, too.

        A federated split has LVIS's fields as well. Images and annotations are sequences that make
        an entry when it is asked for; `list` turns them into what JSON can hold.

        Args:
            image_ids: These images only.
        """
        records = self.records if image_ids is None else _with_ids(self.records, image_ids)
        frequency = [{"frequency": often} for often in self.frequency] or [{}] * len(self.classes)
        names = zip(self.category_ids, self.classes, frequency, strict=True)
        return {
            "images": _Images(self, records),
            "annotations": _Objects(self, records),
            "categories": [{"id": i, "name": name, **often} for i, name, often in names],
        }


def labels_by_image(split: Split) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Which classes are on which images.

    Returns:
        Positions in `split.records` and labels, each pair once, ascending.
    """
    counts = _object_counts(split.records)
    if isinstance(split.records, PackedRecords):
        labels = split.records.labels()
    else:
        labels = np.array([a.label for r in split.records for a in r.annotations], np.int32)
    classes = len(split.classes)
    pairs = np.unique(np.repeat(np.arange(len(counts)), counts) * classes + labels)
    return pairs // classes, pairs % classes


def class_counts(split: Split) -> npt.NDArray[np.int64]:
    """(K,) number of images that contain each class."""
    _, labels = labels_by_image(split)
    counts: npt.NDArray[np.int64] = np.bincount(labels, minlength=len(split.classes))
    return counts


def _object_counts(records: Sequence[ImageRecord]) -> npt.NDArray[np.int64]:
    if isinstance(records, PackedRecords):
        return records.object_counts()
    return np.array([len(record.annotations) for record in records], np.int64)


def _merged(records: Sequence[ImageRecord]) -> Sequence[ImageRecord]:
    if isinstance(records, PackedRecords):
        return records.merged()

    def one(record: ImageRecord) -> ImageRecord:
        annotations = tuple(replace(a, label=0) for a in record.annotations)
        return replace(record, annotations=annotations, negative=(), not_exhaustive=())

    return tuple(one(record) for record in records)


def _with_ids(records: Sequence[ImageRecord], image_ids: Collection[int]) -> Sequence[ImageRecord]:
    if isinstance(records, PackedRecords):
        return records.with_ids(list(image_ids))
    kept = set(image_ids)
    return tuple(record for record in records if record.id in kept)


class _Entries(Sequence[Entry]):
    """Entries of a COCO table, made from records when they are asked for."""

    def __init__(self, split: Split, records: Sequence[ImageRecord]) -> None:
        self.split, self.records = split, records

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> list[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | list[Entry]:
        places = range(len(self))[index]
        return self._entry(places) if isinstance(places, int) else [self._entry(i) for i in places]

    @abstractmethod
    def _entry(self, place: int) -> Entry: ...


class _Images(_Entries):
    def __len__(self) -> int:
        return len(self.records)

    def _entry(self, place: int) -> Entry:
        record, ids = self.records[place], self.split.category_ids
        entry: Entry = {"id": record.id, "height": record.height, "width": record.width}
        if self.split.federated:
            entry["neg_category_ids"] = [ids[label] for label in record.negative]
            entry["not_exhaustive_category_ids"] = [ids[label] for label in record.not_exhaustive]
        return entry


class _Objects(_Entries):
    def __init__(self, split: Split, records: Sequence[ImageRecord]) -> None:
        super().__init__(split, records)
        self.ends = np.cumsum(_object_counts(records))

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def __iter__(self) -> Iterator[Entry]:
        return (self._of(record, a) for record in self.records for a in record.annotations)

    def _entry(self, place: int) -> Entry:
        row = int(np.searchsorted(self.ends, place, side="right"))
        record = self.records[row]
        from_end = place - int(self.ends[row])
        return self._of(record, record.annotations[from_end])

    def _of(self, record: ImageRecord, a: Annotation) -> Entry:
        return {
            "id": a.id,
            "image_id": record.id,
            "category_id": self.split.category_ids[a.label],
            "bbox": [a.box[0], a.box[1], a.box[2] - a.box[0], a.box[3] - a.box[1]],
            "area": a.area,
            "segmentation": a.segmentation,
            "iscrowd": int(a.crowd),
        }
