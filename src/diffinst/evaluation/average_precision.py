"""How good are the detections? COCO's average precision and recall, from plain result lists."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from diffinst.evaluation.accumulate import (
    ALL,
    IOU_50,
    IOU_75,
    LARGE,
    MEDIUM,
    SMALL,
    Arrays,
    accumulate,
    defined,
    mean,
)
from diffinst.evaluation.tables import (
    IouType,
    Record,
    check_settings,
    keep_images,
    read_ground_truth,
    read_results,
)


class Metrics(Protocol):
    """What COCO's and LVIS's metrics share; see `CocoMetrics`."""

    @property
    def ap(self) -> float:
        """Average precision."""

    @property
    def per_class(self) -> dict[str, float]:
        """AP by category name."""

    @property
    def precision(self) -> NDArray[np.float64]:
        """By IoU threshold, recall and class."""

    def as_dict(self, prefix: str) -> dict[str, float]:
        """The numbers by name."""


@dataclass(frozen=True, kw_only=True)
class CocoMetrics:
    """COCO's numbers for one set of results; each in [0, 1], or NaN where nothing is to be found.

    Attributes:
        ap: Average precision over 101 recall points, all classes that have objects and the IoU
            thresholds 0.50, 0.55, ..., 0.95; `ap50`, `ap75`: at one threshold; `ap_small`,
            `ap_medium`, `ap_large`: of objects below 32^2 pixels, from there to 96^2, and above.
        ar1: Recall over the same thresholds and classes with one result per image and class;
            `ar10`: with ten (NaN if `max_detections` is less); `ar_max`: with `max_detections`,
            which also holds for `ar_small`, `ar_medium`, `ar_large` and every `ap`.
        per_class: AP by category name, in the order of category ids.
        precision: (10, 101, num_classes) float64 by IoU threshold, recall 0.00, 0.01, ..., 1.00
            and class in the order of `per_class`; NaN for classes without objects.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar1: float
    ar10: float
    ar_max: float
    ar_small: float
    ar_medium: float
    ar_large: float
    per_class: dict[str, float]
    precision: NDArray[np.float64] = field(repr=False, compare=False)

    def as_dict(self, prefix: str) -> dict[str, float]:
        """Name the twelve numbers for a log, without those per class.

        Args:
            prefix: What was measured, such as `mask` or `box`.

        Returns:
            `mask/AP`, `mask/AP50`, `mask/AP75`, `mask/AP_small`, ..., `mask/AR1`, ... by name.
        """
        return {f"{prefix}/{log_name(n)}": getattr(self, n) for n in number_names(type(self))}


def number_names(metrics: type) -> list[str]:
    """The fields that are one number each, in order: `ap`, `ap50`, ..."""
    return [f.name for f in fields(metrics) if f.name.startswith(("ap", "ar"))]


def log_name(name: str) -> str:
    """`ap_small` as logs call it: `AP_small`."""
    return name[:2].upper() + name[2:]


def coco_metrics(
    ground_truth: Path | Record,
    results: Sequence[Record],
    *,
    iou_type: IouType = "segm",
    max_detections: int = 100,
    image_ids: Collection[int] | None = None,
) -> CocoMetrics:
    """Compare results with ground truth by COCO's rules; the inputs are left as they are.

    Only the key that `iou_type` names is read from a result, so results may carry boxes and masks
    at once; the area of a result is that of its mask or of its box accordingly. The area of an
    object is always its annotation's `area`, as in the COCO tools. Annotations of unlisted images
    or categories are ignored, as there.

    Args:
        ground_truth: A COCO annotation file or its content. Annotations need `image_id`,
            `category_id`, `area` and `segmentation` or `bbox`; images need `id` and, for masks,
            `height` and `width`.
        results: One record per detection: `image_id`, `category_id`, `score` (higher is surer) and
            `segmentation` (compressed RLE at the image's full size) or `bbox` (x, y, width,
            height in pixels of the image).
        iou_type: Compare masks (`segm`) or boxes (`bbox`).
        max_detections: Results used per image and class, best first.
        image_ids: Evaluate these images only (none at all gives NaN); results for other known
            images are left out.

    Returns:
        The twelve numbers, AP per class and the precision curves.

    Raises:
        FileNotFoundError: `ground_truth` is a path at which there is no file.
        ValueError: An unknown `iou_type`, `max_detections` below 1, an id that the ground truth
            does not have, a missing key, a value that is not a finite number, a mask that is no
            compressed RLE or has another size than its image, or two categories of one name.

    Example:
        >>> cell = {"image_id": 1, "category_id": 1, "bbox": [2, 3, 9, 9], "area": 81}
        >>> classes = [{"id": 1, "name": "cell"}]
        >>> truth = {"images": [{"id": 1}], "annotations": [cell], "categories": classes}
        >>> coco_metrics(truth, [{**cell, "score": 0.9}], iou_type="bbox").ap
        1.0
    """
    check_settings(iou_type, max_detections)
    truth, names = read_ground_truth(ground_truth, iou_type)
    detections = read_results(results, truth, names, iou_type)
    if image_ids is not None:
        truth, detections = keep_images(truth, detections, image_ids)
    limits = [limit for limit in (1, 10) if limit < max_detections] + [max_detections]
    arrays = accumulate(truth, detections, iou_type, limits)
    return _summarize(arrays, limits, [name for _, name in sorted(names.items())])


def _summarize(arrays: Arrays, limits: list[int], class_names: list[str]) -> CocoMetrics:
    """Average the arrays at the last limit; the evaluator's own summary assumes one of 100."""
    precision, recall = arrays.precision, arrays.recall
    recall_at = {limit: mean(recall[:, :, ALL, i]) for i, limit in enumerate(limits)}
    return CocoMetrics(
        ap=mean(precision[..., ALL]),
        ap50=mean(precision[IOU_50, ..., ALL]),
        ap75=mean(precision[IOU_75, ..., ALL]),
        ap_small=mean(precision[..., SMALL]),
        ap_medium=mean(precision[..., MEDIUM]),
        ap_large=mean(precision[..., LARGE]),
        ar1=recall_at[1],
        ar10=recall_at.get(10, math.nan),
        ar_max=recall_at[limits[-1]],
        ar_small=mean(recall[:, :, SMALL, -1]),
        ar_medium=mean(recall[:, :, MEDIUM, -1]),
        ar_large=mean(recall[:, :, LARGE, -1]),
        per_class={name: mean(precision[:, :, k, ALL]) for k, name in enumerate(class_names)},
        precision=defined(precision[..., ALL]),
    )
