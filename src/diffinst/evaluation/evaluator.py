"""Evaluating a model on an annotated split: box and mask AP, one picture in memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from diffinst.data.split import ImageRecord, Split
from diffinst.evaluation.average_precision import CocoMetrics, coco_metrics
from diffinst.inference.instances import CocoResult, Instances
from diffinst.inference.predictor import DiffusionInst


@dataclass(frozen=True)
class Report:
    """What an evaluation found.

    Attributes:
        mask: Mask metrics.
        box: Box metrics.
        results: COCO results of all pictures, masks as RLE.
        seconds_per_image: Wall-clock time of `predict` per picture, reading included.
        pictures: How many.
    """

    mask: CocoMetrics
    box: CocoMetrics
    results: list[CocoResult]
    seconds_per_image: float
    pictures: int

    def as_dict(self) -> dict[str, float | None]:
        """`mask/AP`, ..., `box/AP`, ..., `seconds_per_image`, `pictures`; None where undefined."""
        values = {
            **self.mask.as_dict("mask"),
            **self.box.as_dict("box"),
            "seconds_per_image": self.seconds_per_image,
            "pictures": float(self.pictures),
        }
        return finite(values)


def finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """Values as JSON knows them: None for NaN."""
    return {key: None if math.isnan(value) else value for key, value in values.items()}


class Evaluator:
    """Collects results picture by picture, as RLE straight from the crops.

    Args:
        split: The annotated pictures.
        max_detections: Results counted per picture.
        class_names: What the labels of the results mean; empty: the split's classes in order.

    Raises:
        ValueError: The names are not the split's.
    """

    def __init__(
        self, split: Split, max_detections: int = 100, class_names: Sequence[str] = ()
    ) -> None:
        self.split = split
        self.category_ids = category_ids(class_names or split.classes, split)
        self.max_detections = max_detections
        self.results: list[CocoResult] = []
        self.image_ids: list[int] = []

    def add(self, record: ImageRecord, instances: Instances) -> None:
        """Take the result of one picture."""
        self.image_ids.append(record.id)
        self.results += instances.to_coco(record.id, self.category_ids)

    def compute(self) -> tuple[CocoMetrics, CocoMetrics]:
        """Mask and box metrics over the pictures added so far."""
        truth = self.split.as_coco()
        mask, box = (
            coco_metrics(
                truth,
                self.results,
                iou_type=kind,
                max_detections=self.max_detections,
                image_ids=self.image_ids,
            )
            for kind in ("segm", "bbox")
        )
        return mask, box


def evaluate(
    model: DiffusionInst,
    split: Split,
    *,
    steps: int | None = None,
    proposals: int | None = None,
    max_detections: int | None = None,
    seed: int = 0,
    records: Sequence[ImageRecord] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Predict every picture of a split and score the result.

    Args:
        model: What to evaluate.
        split: Annotated pictures; their classes must be the model's.
        steps: Denoising steps.
        proposals: Boxes to start from.
        max_detections: Results kept and counted per picture; the model's own where None.
        seed: Of the noise, the same for every picture.
        records: Only these pictures.
        progress: Called with (done, total) after each picture.

    Raises:
        ValueError: The split has other classes than the model.
    """
    limit = model.config.postprocess.max_detections if max_detections is None else max_detections
    records = split.records if records is None else records
    names = model.config.model.class_names
    if not names and model.config.model.num_classes != len(split.classes):
        raise ValueError(
            f"{split.annotation_file} has {len(split.classes)} classes, the model "
            f"{model.config.model.num_classes} without names; train on this data first"
        )
    evaluator = Evaluator(split, limit, names)
    seconds = 0.0
    for done, record in enumerate(records, start=1):
        begin = time.perf_counter()
        found = model.predict(
            record.path,
            steps=steps,
            proposals=proposals,
            threshold=0.0,
            max_detections=limit,
            seed=seed,
        )
        seconds += time.perf_counter() - begin
        evaluator.add(record, found)
        if progress is not None:
            progress(done, len(records))
    mask, box = evaluator.compute()
    return Report(mask, box, evaluator.results, seconds / max(len(records), 1), len(records))


def category_ids(names: Sequence[str], split: Split) -> tuple[int, ...]:
    """The split's category id of each class name.

    Raises:
        ValueError: The split has other classes.
    """
    by_name = dict(zip(split.classes, split.category_ids, strict=True))
    if set(names) != set(by_name) or len(names) != len(by_name):
        raise ValueError(
            f"{split.annotation_file} has {len(by_name)} classes "
            f"({', '.join(split.classes[:5])}), the model {len(names)} ({', '.join(names[:5])}); "
            "evaluate on data with the model's classes or train on this data first"
        )
    return tuple(by_name[name] for name in names)
