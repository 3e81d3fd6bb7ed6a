"""The right predictions on one image and the objects missed, by COCO's matching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from diffinst.datasets.records import ImageRecord
from diffinst.datasets.segmentation import compressed
from diffinst.datasets.split import Split
from diffinst.results.convert import CocoResult

THRESHOLDS: NDArray[np.float64] = np.arange(10, 20) / 20  # IoU 0.50, 0.55, ..., 0.95
IOU_50 = 0  # the place of IoU 0.50 in them


@dataclass(frozen=True)
class ImageMatch:
    """Predictions and objects of one image, by IoU threshold.

    Attributes:
        hit: bool (10, n), predictions that found an object.
        ignored: bool (10, n), predictions that do not count: they lie in a crowd, or their class
            was not looked for on the image (LVIS).
        found: bool (10, m), annotations that a prediction hit; never a crowd.
        crowd: bool (m,), annotations that are no single object.
    """

    hit: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    found: NDArray[np.bool_]
    crowd: NDArray[np.bool_]

    @property
    def false(self) -> NDArray[np.bool_]:
        """bool (10, n), predictions that count and found nothing."""
        return ~self.hit & ~self.ignored

    @property
    def missed(self) -> NDArray[np.bool_]:
        """bool (10, m), objects that nothing hit."""
        return ~self.found & ~self.crowd

    @property
    def f1_at(self) -> NDArray[np.float64]:
        """(10,) by threshold, 2 TP / (2 TP + FP + FN); 1 where there is nothing."""
        hits = self.hit.sum(1)
        total = 2 * hits + self.false.sum(1) + self.missed.sum(1)
        return np.where(total > 0, 2 * hits / np.maximum(total, 1), 1.0)

    @property
    def f1(self) -> float:
        """Mean of F1 over the thresholds."""
        return float(self.f1_at.mean())


def match(record: ImageRecord, results: Sequence[CocoResult], split: Split) -> ImageMatch:
    """Give each prediction, best first, the free object of its class that it overlaps most.

    Args:
        record: The image.
        results: What was found there, in the split's categories; masks are compared.
        split: Where the image comes from.
    """
    steps, n = len(THRESHOLDS), len(results)
    hit, ignored = np.zeros((steps, n), bool), np.zeros((steps, n), bool)
    found = np.zeros((steps, len(record.annotations)), bool)
    crowd = np.array([annotation.crowd for annotation in record.annotations], bool)
    labels = np.array([annotation.label for annotation in record.annotations], np.int64)
    shapes = [compressed(a.segmentation, record.height, record.width) for a in record.annotations]
    for category in {result["category_id"] for result in results}:
        mine = [i for i, result in enumerate(results) if result["category_id"] == category]
        mine.sort(key=lambda i: -results[i]["score"])
        label = split.category_ids.index(category)
        objects = np.flatnonzero(labels == label)
        ious = np.zeros((len(mine), 0))
        if objects.size:
            masks = [results[i]["segmentation"] for i in mine]
            ious = coco_mask.iou(masks, [shapes[j] for j in objects], crowd[objects].tolist())
        looked_for = label not in record.not_exhaustive and (
            objects.size or label in record.negative
        )
        for i, overlap in zip(mine, ious, strict=True):
            free = np.where(found[:, objects] | crowd[objects], -1.0, overlap)  # (10, objects)
            good = free.max(1, initial=-1.0) >= THRESHOLDS
            hit[good, i] = True
            if good.any():
                found[good, objects[free[good].argmax(1)]] = True
            in_crowd = overlap[crowd[objects]].max(initial=-1.0) >= THRESHOLDS  # takes any number
            ignored[:, i] = ~good & (in_crowd | (split.federated and not looked_for))
    return ImageMatch(hit, ignored, found, crowd)
