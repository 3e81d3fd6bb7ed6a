"""How good is a model on an annotated split? Mask and box AP; pixels of one image at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from diffinst.datasets.split import ImageRecord, Split
from diffinst.evaluation.average_precision import Metrics, coco_metrics
from diffinst.evaluation.lvis import MAX_DETECTIONS, lvis_metrics
from diffinst.evaluation.prediction import (
    Options,
    Prediction,
    Request,
    category_ids,
    predict_record,
    request,
)
from diffinst.evaluation.tables import IouType
from diffinst.inference.predictor import DiffusionInst
from diffinst.io.images import ImageReadError
from diffinst.results.instances import CocoResult, Instances

__all__ = ["Evaluator", "Report", "category_ids", "evaluate", "finite", "report"]

COCO_MAX_DETECTIONS = 100


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
        objects: Annotated objects on them by class name, crowds left out.
        failed: One message per image that could not be predicted.
    """

    mask: Metrics
    box: Metrics
    results: list[CocoResult]
    seconds_per_image: float
    images: int
    image_ids: tuple[int, ...] = ()
    objects: Mapping[str, int] = field(default_factory=dict)
    failed: tuple[str, ...] = ()

    @property
    def annotated(self) -> bool:
        """Whether there was anything to find."""
        return any(self.objects.values())

    def as_dict(self) -> dict[str, float | None]:
        """`mask/AP`, ..., `box/AP`, ..., `seconds_per_image`, `images`; None where undefined."""
        values = {
            **self.mask.as_dict("mask"),
            **self.box.as_dict("box"),
            "seconds_per_image": self.seconds_per_image,
            "images": float(self.images),
            "failed_images": float(len(self.failed)),
        }
        return finite(values)


def finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """Values as JSON knows them: None for NaN."""
    return {key: None if math.isnan(value) else value for key, value in values.items()}


class Evaluator:
    """Collects results image by image, as RLE straight from the crops.

    The metrics are LVIS's where the split is federated, COCO's elsewhere.

    Args:
        split: The annotated images.
        max_detections: Results counted per image (LVIS) or per image and class (COCO); None:
            300 or 100.
        class_names: What the labels of the results mean; empty: the split's classes in order.

    Raises:
        ValueError: The names are not the split's.
    """

    def __init__(
        self,
        split: Split,
        max_detections: int | None = None,
        class_names: Sequence[str] = (),
    ) -> None:
        usual = MAX_DETECTIONS if split.federated else COCO_MAX_DETECTIONS
        self.split = split
        self.category_ids = category_ids(class_names or split.classes, split)
        self.max_detections = usual if max_detections is None else max_detections
        self.results: list[CocoResult] = []
        self.image_ids: list[int] = []

    def add(self, record: ImageRecord, instances: Instances) -> None:
        """Take the result of one image."""
        self.take(record.id, instances.to_coco(record.id, self.category_ids))

    def take(self, image_id: int, results: Sequence[CocoResult]) -> None:
        """Take the result of one image in the split's categories."""
        self.image_ids.append(image_id)
        self.results += results

    def compute(self) -> tuple[Metrics, Metrics]:
        """Mask and box metrics over the images added so far."""
        truth = self.split.as_coco(self.image_ids)
        results = self.results if truth["annotations"] else []
        return self._metrics(truth, results, "segm"), self._metrics(truth, results, "bbox")

    def _metrics(
        self, truth: Mapping[str, object], results: Sequence[CocoResult], kind: IouType
    ) -> Metrics:
        compare = lvis_metrics if self.split.federated else coco_metrics
        return compare(
            truth,
            results,
            iou_type=kind,
            max_detections=self.max_detections,
            image_ids=self.image_ids,
        )


def evaluate(
    model: DiffusionInst,
    split: Split,
    *,
    steps: int | None = None,
    proposals: int | None = None,
    max_detections: int | None = None,
    seed: int = 0,
    single_class: bool = False,
    records: Sequence[ImageRecord] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Predict every image of a split and score the result.

    An image that cannot be read is noted in the report; the others go on and are what is scored.

    Args:
        model: What to evaluate.
        split: Annotated images; their classes must be the model's.
        steps: Denoising steps.
        proposals: Boxes to start from.
        max_detections: Results kept and counted per image; the model's own where None (300 on
            federated data).
        seed: Of the noise, the same for every image.
        single_class: The split was read with all classes as one; take the model's as one, too.
        records: Only these images.
        progress: Called with (done, total) after each image.

    Raises:
        ConfigError: A value is out of range.
        ValueError: The split has other classes than the model.
    """
    options = Options(steps, proposals, max_detections, seed, single_class)
    asked = request(model.config, split, options)
    return evaluate_records(
        model, split, split.records if records is None else records, asked, progress
    )


def evaluate_records(
    model: DiffusionInst,
    split: Split,
    records: Sequence[ImageRecord],
    asked: Request,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """As `evaluate`, with nothing left open."""
    predictions: list[Prediction] = []
    failed: list[str] = []
    for done, record in enumerate(records, start=1):
        try:
            predictions.append(predict_record(model, record, asked))
        except ImageReadError as error:
            failed.append(str(error))
        if progress is not None:
            progress(done, len(records))
    return report(split, predictions, asked.max_detections, failed)


def report(
    split: Split, predictions: Sequence[Prediction], max_detections: int, failed: Sequence[str] = ()
) -> Report:
    """Score predictions of some or all images of a split.

    Args:
        split: Annotated images.
        predictions: One per image.
        max_detections: As in `Evaluator`.
        failed: One message per image that could not be predicted.
    """
    evaluator = Evaluator(split, max_detections)
    for prediction in predictions:
        evaluator.take(prediction.image_id, prediction.results)
    mask, box = evaluator.compute()
    seconds = sum(prediction.seconds for prediction in predictions)
    return Report(
        mask=mask,
        box=box,
        results=evaluator.results,
        seconds_per_image=seconds / max(len(predictions), 1),
        images=len(predictions),
        image_ids=tuple(evaluator.image_ids),
        objects=_objects(split, evaluator.image_ids),
        failed=tuple(failed),
    )


def _objects(split: Split, image_ids: Sequence[int]) -> dict[str, int]:
    names = dict(zip(split.category_ids, split.classes, strict=True))
    counts = dict.fromkeys(split.classes, 0)
    for annotation in cast("Sequence[dict[str, int]]", split.as_coco(image_ids)["annotations"]):
        counts[names[annotation["category_id"]]] += not annotation["iscrowd"]
    return counts
