"""COCO's and LVIS's average precision and recall, from plain lists of results."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import cast

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from diffinst.evaluation.inputs import (
    SHAPE_KEYS,
    Detection,
    IouType,
    Record,
    Truth,
    read_ground_truth,
    read_results,
)

COCO_MAX_DETECTIONS = 100  # per image and class
LVIS_MAX_DETECTIONS = 300  # per image, over all classes (LVIS paper, 5; the `lvis` package)
FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}

# Positions in the evaluator's arrays.
IOU_50, IOU_75, IOU_90 = 0, 5, 8  # of the thresholds 0.50, 0.55, ..., 0.95
ALL = 0  # of the areas all, small, medium, large

_THRESHOLDS, _RECALLS, _AREAS = 10, 101, 4
_MAX_PAIRS = 1_000_000
"""Pairs of image and class that the evaluator holds at once, about 500 bytes each; LVIS val alone
has 24 millions, almost all of them empty."""


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """The numbers for one set of masks or boxes.

    Each is in [0, 1], NaN where there is nothing to be found, or None where the benchmark has no
    such number.

    Attributes:
        ap: Average precision over 101 recall points, all classes that have objects and the IoU
            thresholds 0.50, 0.55, ..., 0.95; `ap50`, `ap75`, `ap90`: at one threshold; `ap_small`,
            `ap_medium`, `ap_large`: of objects below 32^2 pixels, from there to 96^2, and above.
        ap_rare: LVIS only: of the classes on 1 to 10 training images; `ap_common`: on 11 to 100;
            `ap_frequent`: on more.
        ar1: COCO only: recall over the same thresholds and classes with one result per image and
            class; `ar10`: with ten (NaN if `max_detections` is less).
        ar_max: Recall with `max_detections`, which also holds for `ar_small`, `ar_medium`,
            `ar_large` and every `ap`.
        per_class: AP by category name, in the order of category ids.
        precision: (10, 101, num_classes) float64 by IoU threshold, recall 0.00, 0.01, ..., 1.00
            and class in the order of `per_class`; NaN for classes without objects.
    """

    ap: float
    ap50: float
    ap75: float
    ap90: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ap_rare: float | None = None
    ap_common: float | None = None
    ap_frequent: float | None = None
    ar1: float | None = None
    ar10: float | None = None
    ar_max: float
    ar_small: float
    ar_medium: float
    ar_large: float
    per_class: dict[str, float]
    precision: NDArray[np.float64] = field(repr=False, compare=False)

    @property
    def per_class_ap50(self) -> dict[str, float]:
        """AP at IoU 0.5 by category name."""
        values: list[float] = self.precision[IOU_50].mean(0).tolist()  # NaN stays NaN
        return dict(zip(self.per_class, values, strict=True))

    def as_dict(self, prefix: str) -> dict[str, float]:
        """Name the benchmark's numbers for a log, without those per class.

        Args:
            prefix: What was measured, such as `mask` or `box`.

        Returns:
            `mask/AP`, `mask/AP50`, ..., `mask/AP_small`, ..., `mask/AR_max`, ... by name.
        """
        names = [f.name for f in fields(self) if f.name.startswith(("ap", "ar"))]
        values = {f"{prefix}/{name[:2].upper()}{name[2:]}": getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}


def compute_metrics(
    ground_truth: Path | Record,
    results: Sequence[Record],
    *,
    iou_type: IouType = "segm",
    federated: bool = False,
    max_detections: int | None = None,
) -> Metrics:
    """Compare results with ground truth by COCO's or LVIS's rules; the inputs are left as they are.

    Only the key that `iou_type` names is read from a result, so results may carry boxes and masks
    at once; the area of a result is that of its mask or of its box accordingly. The area of an
    object is always its annotation's `area`, as in the COCO tools. Annotations of unlisted images
    or categories are ignored, as there.

    LVIS's rules: on an image only its annotated classes and those of `neg_category_ids` count. Of
    a class in `not_exhaustive_category_ids`, results that match no object are ignored. The best
    `max_detections` results of an image are chosen, whatever their classes, before anything is
    ignored. Objects and results of area 0 are omitted, and no object is a crowd.

    Args:
        ground_truth: A COCO or LVIS annotation file or its content. Annotations need `image_id`,
            `category_id`, `area` and `segmentation` or `bbox`; images need `id`, for masks
            `height` and `width`, and for LVIS `neg_category_ids` and
            `not_exhaustive_category_ids`. Without the `frequency` ("r", "c", "f") of LVIS's
            categories the three numbers by frequency are NaN.
        results: One record per detection: `image_id`, `category_id`, `score` (higher is surer) and
            `segmentation` (compressed RLE at the image's full size) or `bbox` (x, y, width,
            height in pixels of the image).
        iou_type: Compare masks (`segm`) or boxes (`bbox`).
        federated: By LVIS's rules.
        max_detections: Results used, best first: per image and class (COCO, 100 where None) or per
            image (LVIS, 300 where None).

    Raises:
        FileNotFoundError: `ground_truth` is a path at which there is no file.
        ValueError: An unknown `iou_type`, `max_detections` below 1, an id that the ground truth
            does not have, a missing key, a value that is not a finite number, a mask that is no
            compressed RLE or has another size than its image, or two categories of one name.

    Example:
        >>> cell = {"image_id": 1, "category_id": 1, "bbox": [2, 3, 9, 9], "area": 81}
        >>> classes = [{"id": 1, "name": "cell"}]
        >>> truth = {"images": [{"id": 1}], "annotations": [cell], "categories": classes}
        >>> compute_metrics(truth, [{**cell, "score": 0.9}], iou_type="bbox").ap
        1.0
    """
    if max_detections is None:
        max_detections = LVIS_MAX_DETECTIONS if federated else COCO_MAX_DETECTIONS
    if iou_type not in SHAPE_KEYS:
        raise ValueError(f"iou_type is {iou_type!r}, expected 'segm' (masks) or 'bbox' (boxes)")
    if not isinstance(max_detections, int) or max_detections < 1:
        raise ValueError(f"max_detections is {max_detections!r}, expected an integer of at least 1")
    truth = read_ground_truth(ground_truth, iou_type, federated=federated)
    detections = read_results(results, truth, iou_type)
    limits = [max_detections]
    if federated:
        truth["annotations"] = [
            {**annotation, "iscrowd": 0}
            for annotation in truth["annotations"]
            if cast("float", annotation["area"]) > 0
        ]
        detections = _counted(detections, truth, iou_type, max_detections)
    else:
        limits = [limit for limit in (1, 10) if limit < max_detections] + limits
    precision, recall = accumulate(truth, detections, iou_type, limits, federated=federated)

    # The evaluator's own summary assumes a limit of 100.
    whole = precision[..., ALL].copy()  # the other areas are not kept
    at = {"ap50": IOU_50, "ap75": IOU_75, "ap90": IOU_90}
    numbers = {"ap": mean(whole), **{name: mean(whole[place]) for name, place in at.items()}}
    for i, area in enumerate(("small", "medium", "large"), start=1):
        numbers |= {f"ap_{area}": mean(precision[..., i]), f"ar_{area}": mean(recall[:, :, i, -1])}
    by_limit = {limit: mean(recall[:, :, ALL, i]) for i, limit in enumerate(limits)}
    if federated:
        often = np.array([category["frequency"] for category in truth["categories"]], dtype=np.str_)
        for letter, name in FREQUENCIES.items():
            numbers[f"ap_{name}"] = mean(whole[:, :, often == letter])
    else:
        numbers |= {"ar1": by_limit[1], "ar10": by_limit.get(10, math.nan)}
    return Metrics(
        **numbers,
        ar_max=by_limit[max_detections],
        per_class={str(c["name"]): mean(whole[:, :, k]) for k, c in enumerate(truth["categories"])},
        precision=whole,
    )


def accumulate(
    truth: Truth,
    detections: list[Detection],
    iou_type: IouType,
    limits: Sequence[int],
    *,
    federated: bool = False,
    max_pairs: int = _MAX_PAIRS,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Match results with objects, class by class in the order of category ids.

    Args:
        truth: From `read_ground_truth`.
        detections: From `read_results`.
        iou_type: Masks or boxes.
        limits: Results used per image and class, ascending; precision holds for the last one.
        federated: Unmatched results of a class that an image lists as not exhaustive do not count.
        max_pairs: The memory: classes are taken together up to so many pairs with images.

    Returns:
        precision: (10 IoU thresholds, 101 recalls, classes, 4 areas), recall: (10 IoU thresholds,
        classes, 4 areas, limits); NaN where a class has no objects of that area.
    """
    category_ids = sorted(cast("int", category["id"]) for category in truth["categories"])
    objects, found = defaultdict(list), defaultdict(list)
    for annotation in truth["annotations"]:
        objects[annotation["category_id"]].append(annotation)
    for detection in detections:
        found[detection["category_id"]].append(detection)

    count = len(category_ids)
    precision = np.full((_THRESHOLDS, _RECALLS, count, _AREAS), np.nan)
    recall = np.full((_THRESHOLDS, count, _AREAS, len(limits)), np.nan)
    at_once = max(1, max_pairs // max(1, len(truth["images"])))
    for first in range(0, count, at_once):
        chunk = category_ids[first : first + at_once]
        annotations = [annotation for i in chunk for annotation in objects[i]]
        if not annotations:
            continue
        results = [result for i in chunk for result in found[i]]
        used = {record["image_id"] for record in (*annotations, *results)}
        part: Truth = {
            "categories": [{"id": i, "frequency": "f"} for i in chunk],  # LVIS style asks for one
            "images": [image for image in truth["images"] if image["id"] in used],
            "annotations": annotations,
        }
        coco = COCO(part)
        evaluator = COCOeval_faster(coco, coco.loadRes(results), iou_type, lvis_style=federated)
        evaluator.params.maxDets = list(limits)
        evaluator.evaluate()
        evaluator.accumulate()
        places = slice(first, first + len(chunk))
        precision[:, :, places] = evaluator.eval["precision"][..., -1]
        recall[:, places] = evaluator.eval["recall"]
    for values in (precision, recall):
        values[values == -1] = np.nan  # the evaluator's sign of no objects
    return precision, recall


def _counted(
    detections: list[Detection], truth: Truth, iou_type: IouType, limit: int
) -> list[Detection]:
    """What LVIS counts: of the best of each image, those of a class looked for there.

    faster-coco-eval drops the other classes, too, but takes the limit for one per class, and ends
    in an IndexError (1.8.0) on the masks of an image with nothing but other classes.
    """
    asked = {i["id"]: set(cast("Sequence[int]", i["neg_category_ids"])) for i in truth["images"]}
    for annotation in truth["annotations"]:
        asked.get(annotation["image_id"], set()).add(cast("int", annotation["category_id"]))
    counted: list[Detection] = []
    seen: Counter[object] = Counter()
    for d in sorted(detections, key=lambda d: cast("float", d["score"]), reverse=True):
        seen[d["image_id"]] += 1
        looked_for = d["category_id"] in asked[d["image_id"]]
        if looked_for and seen[d["image_id"]] <= limit and _area(d, iou_type) > 0:
            counted.append(d)
    return counted


def _area(detection: Detection, iou_type: IouType) -> float:
    if iou_type == "segm":
        return float(coco_mask.area(detection["segmentation"]))
    box = cast("list[float]", detection["bbox"])
    return box[2] * box[3]


def mean(values: NDArray[np.float64]) -> float:
    """Mean of the defined values; NaN where there is none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan
