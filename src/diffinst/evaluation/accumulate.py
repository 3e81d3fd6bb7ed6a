"""Which precision belongs to which recall? COCO's and LVIS's matching, some classes at a time."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray

from diffinst.evaluation.tables import Detection, IouType, Truth

# Positions in the evaluator's arrays.
IOU_50, IOU_75 = 0, 5  # of the thresholds 0.50, 0.55, ..., 0.95
ALL, SMALL, MEDIUM, LARGE = 0, 1, 2, 3  # COCO's areas

_THRESHOLDS, _RECALLS, _AREAS = 10, 101, 4
_MAX_PAIRS = 1_000_000
"""Pairs of image and class that the evaluator holds at once, about 500 bytes each; LVIS val alone
has 24 millions, almost all of them empty."""


@dataclass(frozen=True)
class Arrays:
    """What the metrics are means of; -1 where a class has no objects of that area.

    Attributes:
        precision: float64 (10 IoU thresholds, 101 recalls, classes, 4 areas).
        recall: float64 (10 IoU thresholds, classes, 4 areas, limits).
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]


def accumulate(
    truth: Truth,
    detections: list[Detection],
    iou_type: IouType,
    limits: Sequence[int],
    *,
    federated: bool = False,
    max_pairs: int = _MAX_PAIRS,
) -> Arrays:
    """Match results with objects, class by class in the order of category ids.

    Args:
        truth: From `tables.read_ground_truth`.
        detections: From `tables.read_results`.
        iou_type: Masks or boxes.
        limits: Results used per image and class, ascending; precision holds for the last one.
        federated: Unmatched results of a class that an image lists as not exhaustive do not count.
        max_pairs: The memory: classes are taken together up to so many pairs with images.
    """
    category_ids = sorted(cast("int", category["id"]) for category in truth["categories"])
    objects, found = defaultdict(list), defaultdict(list)
    for annotation in truth["annotations"]:
        objects[annotation["category_id"]].append(annotation)
    for detection in detections:
        found[detection["category_id"]].append(detection)

    count = len(category_ids)
    precision = np.full((_THRESHOLDS, _RECALLS, count, _AREAS), -1.0)
    recall = np.full((_THRESHOLDS, count, _AREAS, len(limits)), -1.0)
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
    return Arrays(precision, recall)


def mean(values: NDArray[np.float64]) -> float:
    """Mean of the defined values (the others are -1); NaN where there is none."""
    known = values[values > -1]
    return float(known.mean()) if known.size else math.nan


def defined(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A copy with NaN in the place of -1."""
    return np.where(values > -1, values, np.nan)
