"""How good are the detections where not every class was looked for on every image? LVIS's AP."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

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
from diffinst.evaluation.average_precision import log_name, number_names
from diffinst.evaluation.tables import (
    Detection,
    IouType,
    Record,
    Truth,
    check_settings,
    keep_images,
    read_ground_truth,
    read_results,
)

MAX_DETECTIONS = 300  # per image, over all classes (LVIS paper, 5; the `lvis` package)
FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}


@dataclass(frozen=True, kw_only=True)
class LvisMetrics:
    """LVIS's numbers for one set of results; each in [0, 1], or NaN where nothing is to be found.

    Attributes:
        ap: Average precision over 101 recall points, all classes that have objects and the IoU
            thresholds 0.50, 0.55, ..., 0.95; `ap50`, `ap75`: at one threshold; `ap_small`,
            `ap_medium`, `ap_large`: of objects below 32^2 pixels, from there to 96^2, and above;
            `ap_rare`, `ap_common`, `ap_frequent`: of the classes on 1 to 10, 11 to 100, and more
            training images.
        ar_max: Recall over the same thresholds and classes with `max_detections` (300 in LVIS)
            results per image; `ar_small`, `ar_medium`, `ar_large`: by area.
        per_class: AP by category name, in the order of category ids.
        precision: (10, 101, num_classes) float64, as in `CocoMetrics`.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ap_rare: float
    ap_common: float
    ap_frequent: float
    ar_max: float
    ar_small: float
    ar_medium: float
    ar_large: float
    per_class: dict[str, float]
    precision: NDArray[np.float64] = field(repr=False, compare=False)

    def as_dict(self, prefix: str) -> dict[str, float]:
        """Name the thirteen numbers for a log: `mask/AP`, ..., `mask/AP_rare`, ..., `mask/AR_max`.

        Args:
            prefix: What was measured, such as `mask` or `box`.
        """
        return {f"{prefix}/{log_name(n)}": getattr(self, n) for n in number_names(type(self))}


def lvis_metrics(
    ground_truth: Path | Record,
    results: Sequence[Record],
    *,
    iou_type: IouType = "segm",
    max_detections: int = MAX_DETECTIONS,
    image_ids: Collection[int] | None = None,
) -> LvisMetrics:
    """Compare results with federated ground truth by LVIS's rules; the inputs are left as they are.

    On an image only its annotated classes and those of `neg_category_ids` count: results of other
    classes are ignored. Of a class in `not_exhaustive_category_ids`, results that match no object
    are ignored. The best `max_detections` results of an image count, whatever their classes, and
    are chosen before anything is ignored. Objects and results of area 0 are left out.

    Args:
        ground_truth: An LVIS annotation file or its content: as for `coco_metrics`, and
            `neg_category_ids`, `not_exhaustive_category_ids` of the images, `frequency` ("r", "c",
            "f") of the categories, without which the three numbers by frequency are NaN.
        results: As for `coco_metrics`.
        iou_type: Compare masks (`segm`) or boxes (`bbox`).
        max_detections: Results used per image, best first.
        image_ids: Evaluate these images only.

    Raises:
        FileNotFoundError: `ground_truth` is a path at which there is no file.
        ValueError: As for `coco_metrics`.

    Example:
        >>> cell = {"image_id": 1, "category_id": 1, "bbox": [2, 3, 9, 9], "area": 81}
        >>> image = {"id": 1, "neg_category_ids": [], "not_exhaustive_category_ids": [1]}
        >>> classes = [{"id": 1, "name": "cell", "frequency": "r"}]
        >>> truth = {"images": [image], "annotations": [cell], "categories": classes}
        >>> elsewhere = {"image_id": 1, "category_id": 1, "bbox": [50, 50, 9, 9], "score": 1.0}
        >>> lvis_metrics(truth, [elsewhere, {**cell, "score": 0.9}], iou_type="bbox").ap_rare
        1.0
    """
    check_settings(iou_type, max_detections)
    truth, names = read_ground_truth(ground_truth, iou_type, federated=True)
    detections = read_results(results, truth, names, iou_type)
    if image_ids is not None:
        truth, detections = keep_images(truth, detections, image_ids)
    truth["annotations"] = [
        {**annotation, "iscrowd": 0}  # LVIS knows no crowds
        for annotation in truth["annotations"]
        if cast("float", annotation["area"]) > 0
    ]
    best = _best_of_image(detections, max_detections)
    counted = [d for d in _labelled(best, truth) if _area(d, iou_type) > 0]
    arrays = accumulate(truth, counted, iou_type, [max_detections], federated=True)
    by_id = {cast("int", c["id"]): str(c["frequency"]) for c in truth["categories"]}
    order = sorted(by_id)
    return _summarize(arrays, [names[i] for i in order], [by_id[i] for i in order])


def _best_of_image(detections: list[Detection], limit: int) -> list[Detection]:
    """At most `limit` per image, of equal scores those that came first."""
    by_image: dict[object, list[Detection]] = defaultdict(list)
    for detection in detections:
        by_image[detection["image_id"]].append(detection)
    best: list[Detection] = []
    for found in by_image.values():
        if len(found) > limit:
            found = sorted(found, key=lambda d: cast("float", d["score"]), reverse=True)[:limit]
        best += found
    return best


def _labelled(detections: list[Detection], truth: Truth) -> list[Detection]:
    """Those of a class that was looked for on their image."""
    looked_for: dict[object, set[object]] = {
        image["id"]: set(cast("Sequence[int]", image["neg_category_ids"]))
        for image in truth["images"]
    }
    for annotation in truth["annotations"]:
        if annotation["image_id"] in looked_for:
            looked_for[annotation["image_id"]].add(annotation["category_id"])
    return [d for d in detections if d["category_id"] in looked_for[d["image_id"]]]


def _area(detection: Detection, iou_type: IouType) -> float:
    if iou_type == "segm":
        return float(coco_mask.area(detection["segmentation"]))
    box = cast("list[float]", detection["bbox"])
    return box[2] * box[3]


def _summarize(arrays: Arrays, class_names: list[str], frequencies: list[str]) -> LvisMetrics:
    precision, recall = arrays.precision, arrays.recall[..., -1]
    by_frequency = {
        letter: mean(precision[:, :, np.array(frequencies, dtype=np.str_) == letter, ALL])
        for letter in FREQUENCIES
    }
    return LvisMetrics(
        ap=mean(precision[..., ALL]),
        ap50=mean(precision[IOU_50, ..., ALL]),
        ap75=mean(precision[IOU_75, ..., ALL]),
        ap_small=mean(precision[..., SMALL]),
        ap_medium=mean(precision[..., MEDIUM]),
        ap_large=mean(precision[..., LARGE]),
        ap_rare=by_frequency["r"],
        ap_common=by_frequency["c"],
        ap_frequent=by_frequency["f"],
        ar_max=mean(recall[..., ALL]),
        ar_small=mean(recall[..., SMALL]),
        ar_medium=mean(recall[..., MEDIUM]),
        ar_large=mean(recall[..., LARGE]),
        per_class={name: mean(precision[:, :, k, ALL]) for k, name in enumerate(class_names)},
        precision=defined(precision[..., ALL]),
    )
