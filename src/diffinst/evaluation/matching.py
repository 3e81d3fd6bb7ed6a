"""Which predictions on one image are right, and which objects were missed? COCO's matching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from diffinst.datasets.records import ImageRecord
from diffinst.datasets.segmentation import compressed
from diffinst.datasets.split import Split
from diffinst.results.instances import CocoResult

THRESHOLDS: NDArray[np.float64] = np.arange(10, 20) / 20  # IoU 0.50, 0.55, ..., 0.95


@dataclass(frozen=True)
class Match:
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
    def f1(self) -> float:
        """Mean over the thresholds of 2 TP / (2 TP + FP + FN); 1 where there is nothing."""
        hits = self.hit.sum(1)
        wrong = self.false.sum(1) + self.missed.sum(1)
        total = 2 * hits + wrong
        return float(np.where(total > 0, 2 * hits / np.maximum(total, 1), 1.0).mean())


def match(record: ImageRecord, results: Sequence[CocoResult], split: Split) -> Match:
    """Give each prediction, best first, the free object of its class that it overlaps most.

    Args:
        record: The image.
        results: What was found there, in the split's categories; masks are compared.
        split: Where the image comes from.
    """
    n, m = len(results), len(record.annotations)
    steps = len(THRESHOLDS)
    hit, ignored = np.zeros((steps, n), bool), np.zeros((steps, n), bool)
    found = np.zeros((steps, m), bool)
    crowd = np.array([annotation.crowd for annotation in record.annotations], bool)
    truth = [split.category_ids[annotation.label] for annotation in record.annotations]
    shapes = [compressed(a.segmentation, record.height, record.width) for a in record.annotations]
    for category in {result["category_id"] for result in results}:
        mine = [i for i, result in enumerate(results) if result["category_id"] == category]
        mine.sort(key=lambda i: -results[i]["score"])
        objects = np.array([j for j, of in enumerate(truth) if of == category], np.int64)
        if objects.size:
            masks = [results[i]["segmentation"] for i in mine]
            ious = coco_mask.iou(masks, [shapes[j] for j in objects], crowd[objects].tolist())
            for i, overlap in zip(mine, ious, strict=True):
                _take_best(i, overlap, objects, hit, ignored, found, crowd)
        if split.federated:
            ignored[:, mine] |= _not_asked(category, record, split, bool(objects.size))
    return Match(hit, ignored & ~hit, found, crowd)


def _take_best(
    i: int,
    overlap: NDArray[np.float64],
    objects: NDArray[np.int64],
    hit: NDArray[np.bool_],
    ignored: NDArray[np.bool_],
    found: NDArray[np.bool_],
    crowd: NDArray[np.bool_],
) -> None:
    """Match prediction i with one of the objects at each threshold; crowds take any number."""
    free = np.where(found[:, objects] | crowd[objects], -1.0, overlap)  # (10, objects)
    best = free.argmax(1)
    good = free[np.arange(len(best)), best] >= THRESHOLDS
    hit[good, i] = True
    found[good, objects[best[good]]] = True
    in_crowd = np.where(crowd[objects], overlap, -1.0).max()
    ignored[:, i] |= ~good & (in_crowd >= THRESHOLDS)


def _not_asked(category: int, record: ImageRecord, split: Split, annotated: bool) -> bool:
    """Whether predictions of a class that find nothing do not count on an image (LVIS)."""
    label = split.category_ids.index(category)
    return label in record.not_exhaustive or not (annotated or label in record.negative)
