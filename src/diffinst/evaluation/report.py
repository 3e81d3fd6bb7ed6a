"""How good predictions of a split are: mask, box and label-map metrics, and what failed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

from diffinst.datasets.split import Split
from diffinst.evaluation.inputs import IouType
from diffinst.evaluation.label_metrics import LabelMetrics, label_metrics
from diffinst.evaluation.metrics import Metrics, compute_metrics
from diffinst.evaluation.prediction import Prediction
from diffinst.results.convert import CocoResult


class ClassRow(NamedTuple):
    """One class; NaN where it has no objects.

    Attributes:
        name: Its name.
        ap: Mask AP.
        ap50: Mask AP at IoU 0.5.
        box_ap: Box AP.
        box_ap50: Box AP at IoU 0.5.
        objects: Annotated on the images evaluated, crowds omitted.
    """

    name: str
    ap: float
    ap50: float
    box_ap: float
    box_ap50: float
    objects: int


@dataclass(frozen=True)
class Report:
    """What an evaluation found.

    Attributes:
        mask: Mask metrics; NaN everywhere if nothing is annotated.
        box: Box metrics.
        results: COCO results of all images, masks as RLE.
        seconds_per_image: Wall-clock time of `predict` per image, reading included.
        images: How many were predicted; they alone are counted.
        image_ids: Which ones.
        objects: Annotated objects on them by class name, crowds omitted.
        failed: One message per image that could not be predicted.
        notes: What could not be written, and why; how other tools count.
        label_map: Metrics of label maps; of data of one class with objects only.
    """

    mask: Metrics
    box: Metrics
    results: list[CocoResult]
    seconds_per_image: float
    images: int
    image_ids: tuple[int, ...] = ()
    objects: Mapping[str, int] = field(default_factory=dict)
    failed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    label_map: LabelMetrics | None = None

    @property
    def annotated(self) -> bool:
        """Whether there was anything to find."""
        return any(self.objects.values())

    def as_dict(self) -> dict[str, float | None]:
        """`mask/AP`, ..., `box/AP`, ..., `label_map/mSA`, ..., `images`; None where undefined."""
        values = {
            **self.mask.as_dict("mask"),
            **self.box.as_dict("box"),
            **(self.label_map.as_dict("label_map") if self.label_map else {}),
            "seconds_per_image": self.seconds_per_image,
            "images": float(self.images),
            "failed_images": float(len(self.failed)),
        }
        return finite(values)

    def class_rows(self) -> list[ClassRow]:
        """All classes, the best mask AP first, those without objects last."""
        ap, box_ap = self.mask.per_class, self.box.per_class
        ap50, box_ap50 = self.mask.per_class_ap50, self.box.per_class_ap50
        rows = [
            ClassRow(name, ap[name], ap50[name], box_ap[name], box_ap50[name], self.objects[name])
            for name in ap
        ]
        return sorted(rows, key=lambda row: (math.isnan(row.ap), -row.ap, row.name))


def finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """Values as JSON knows them: None for NaN."""
    return {key: None if math.isnan(value) else value for key, value in values.items()}


def score(
    split: Split,
    predictions: Iterable[Prediction],
    max_detections: int | None = None,
    failed: Sequence[str] = (),
    threshold: float | None = None,
) -> Report:
    """Score predictions of some or all images of a split: by LVIS's rules where it is federated.

    Args:
        split: Annotated images.
        predictions: One per image; images without one do not count.
        max_detections: As in `compute_metrics`.
        failed: One message per image that could not be predicted.
        threshold: Lowest score of what enters label maps; None: nothing is said of them.
    """
    results: list[CocoResult] = []
    by_image: dict[int, list[CocoResult]] = {}
    seconds: dict[int, float] = {}
    for prediction in predictions:
        results += prediction.results
        by_image[prediction.image_id] = prediction.results
        seconds[prediction.image_id] = prediction.seconds
    truth = split.as_coco(seconds)
    annotations = cast("Sequence[dict[str, int]]", truth["annotations"])

    def metrics(kind: IouType) -> Metrics:
        return compute_metrics(
            truth,
            results if annotations else [],
            iou_type=kind,
            federated=split.federated,
            max_detections=max_detections,
        )

    names = dict(zip(split.category_ids, split.classes, strict=True))
    objects = dict.fromkeys(split.classes, 0)
    for annotation in annotations:
        objects[names[annotation["category_id"]]] += not annotation["iscrowd"]
    label_map = None
    one_class = len(split.classes) == 1 and not split.federated
    if threshold is not None and one_class and any(objects.values()):
        label_map = label_metrics(split.records, by_image, threshold)
    return Report(
        mask=metrics("segm"),
        box=metrics("bbox"),
        results=results,
        seconds_per_image=sum(seconds.values()) / max(len(seconds), 1),
        images=len(seconds),
        image_ids=tuple(seconds),
        objects=objects,
        failed=tuple(failed),
        label_map=label_map,
    )
