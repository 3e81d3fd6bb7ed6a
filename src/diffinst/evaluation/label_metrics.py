"""How good label maps are, in the words of cell segmentation: mSA, AP@0.5, F1@0.5 and PQ.

A label map gives each pixel to one object at most. So predictions are made disjoint first: a pixel
belongs to the best score among those that cover it, and what is left of the others counts unless
it is empty. Between disjoint objects at most one pair for each has an IoU above 0.5 (two would
share more than they have), so greedy and optimal matching are the same and nothing is to choose.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from diffinst.datasets.records import ImageRecord
from diffinst.datasets.segmentation import Segmentation, compressed, run_lengths
from diffinst.evaluation.matching import IOU_50, THRESHOLDS
from diffinst.results.convert import CocoResult

CROWD = -1  # of a label map: a region in which objects are not told apart


@dataclass(frozen=True)
class LabelCounts:
    """Right and wrong objects of one image; a hit has an IoU above the threshold.

    Attributes:
        hits: int64 (10,), pairs by IoU threshold 0.50, 0.55, ..., 0.95.
        false: int64 (10,), predicted objects that hit nothing.
        missed: int64 (10,), annotated objects that nothing hit.
        iou: Sum of the IoU of the pairs at threshold 0.50.
    """

    hits: NDArray[np.int64]
    false: NDArray[np.int64]
    missed: NDArray[np.int64]
    iou: float


@dataclass(frozen=True, kw_only=True)
class LabelMetrics:
    """The numbers for the label maps of some images, each in [0, 1].

    Attributes:
        msa: Mean segmentation accuracy, the score of the 2018 Data Science Bowl: TP / (TP + FP +
            FN), mean over the IoU thresholds 0.50, 0.55, ..., 0.95 of each image, then over the
            images. One with nothing to find has 1 where nothing is predicted, else 0. NaN without
            images.
        ap50: The same at the threshold 0.5 alone; what the field calls AP there. It knows no
            ranking by score, as COCO's AP does.
        f1_50: 2 TP / (2 TP + FP + FN) at the threshold 0.5, objects of all images together; NaN
            where nothing is annotated and nothing predicted.
        pq: Panoptic quality: the sum of the IoU of the pairs above 0.5 over TP + FP / 2 + FN / 2,
            objects of all images together; NaN as above.
        threshold: Lowest score of a prediction that counted.
    """

    msa: float
    ap50: float
    f1_50: float
    pq: float
    threshold: float

    def as_dict(self, prefix: str) -> dict[str, float]:
        """Name the numbers as the field does: `label_map/mSA`, `label_map/AP@0.5`, ..."""
        names = ("mSA", "AP@0.5", "F1@0.5", "PQ", "threshold")
        values = (self.msa, self.ap50, self.f1_50, self.pq, self.threshold)
        return {f"{prefix}/{name}": value for name, value in zip(names, values, strict=True)}


def label_metrics(
    records: Iterable[ImageRecord],
    results: Mapping[int, Sequence[CocoResult]],
    threshold: float,
) -> LabelMetrics:
    """Make label maps of predictions and annotations, whatever their classes, and compare them.

    Where annotations overlap, the smaller object is on top. Crowds are no objects: their pixels
    count for no IoU, and a prediction that hits nothing and lies in them by more than half is
    ignored.

    Args:
        records: Annotated images.
        results: What was found, by image id; images without an entry do not count.
        threshold: Lowest score of a prediction that counts.

    Example:
        >>> label_metrics([], {}, 0.5).msa
        nan
    """
    counts = []
    for record in records:
        if record.id in results:
            sure = [r for r in results[record.id] if r["score"] >= threshold]
            sure.sort(key=lambda r: -r["score"])
            shapes = [cast("Segmentation", r["segmentation"]) for r in sure]
            predicted = paint(shapes, record.height, record.width)
            counts.append(count(predicted, _truth(record)))
    return summarize(counts, threshold)


def paint(shapes: Sequence[Segmentation], height: int, width: int) -> NDArray[np.int32]:
    """Number the pixels of an image by the first of the shapes that covers them.

    Args:
        shapes: In any of COCO's forms.
        height: Of the image.
        width: Of the image.

    Returns:
        (height, width), 0 where no shape is, 1 for the first, 2 for the second, ...
    """
    flat = np.zeros(height * width, np.int32)  # column by column, as RLE goes
    for label in range(len(shapes), 0, -1):
        borders = np.cumsum(run_lengths(compressed(shapes[label - 1], height, width)["counts"]))
        for start, end in zip(borders[::2].tolist(), borders[1::2].tolist(), strict=False):
            flat[start:end] = label
    label_map: NDArray[np.int32] = flat.reshape(width, height).T
    return label_map


def _truth(record: ImageRecord) -> NDArray[np.int32]:
    """The label map of the annotations, crowds below all objects."""
    shapes = sorted(record.annotations, key=lambda a: (a.crowd, a.area))
    labels = paint([a.segmentation for a in shapes], record.height, record.width)
    objects = sum(not a.crowd for a in shapes)
    labels[labels > objects] = CROWD
    return labels


def count(predicted: NDArray[np.integer], truth: NDArray[np.integer]) -> LabelCounts:
    """Compare two label maps of an image; no object hits two, as the file's docstring says.

    Args:
        predicted: (H, W), 0 where nothing is, else the number of an object, from 1; numbers may be
            missing.
        truth: (H, W) likewise, and `CROWD` where crowds are.
    """
    columns = int(truth.max(initial=0)) + 2  # crowd, background, objects
    pairs = predicted.astype(np.int64) * columns + (truth.astype(np.int64) - CROWD)
    shared = np.bincount(pairs.ravel(order="K"))
    # Pixels by predicted object or background, and by column.
    shared = np.pad(shared, (0, -shared.size % columns)).reshape(-1, columns)
    object_areas = shared[:, 2:].sum(0)
    there = object_areas > 0
    areas, in_crowd = shared[1:].sum(1), shared[1:, 0]
    some = areas > 0
    overlap = shared[1:, 2:][some][:, there]  # (n, m)
    areas, in_crowd, object_areas = areas[some], in_crowd[some], object_areas[there]
    ious = overlap / ((areas - in_crowd)[:, None] + object_areas - overlap)
    best = ious.max(1, initial=0.0)  # (n,)
    hit = best > THRESHOLDS[:, None]  # (10, n)
    hits = hit.sum(1)
    false = (~hit & (2 * in_crowd <= areas)).sum(1)
    return LabelCounts(hits, false, len(object_areas) - hits, float(best[hit[IOU_50]].sum()))


def summarize(counts: Sequence[LabelCounts], threshold: float) -> LabelMetrics:
    """The numbers for some images, from the counts of each.

    Args:
        counts: From `count`.
        threshold: Is handed on.
    """
    if not counts:
        return LabelMetrics(
            msa=math.nan, ap50=math.nan, f1_50=math.nan, pq=math.nan, threshold=threshold
        )
    hits = np.array([c.hits for c in counts])  # (images, 10)
    wrong = np.array([c.false + c.missed for c in counts])
    accuracy = np.where(hits + wrong > 0, hits / np.maximum(hits + wrong, 1), 1.0)
    right = hits[:, IOU_50].sum()
    halves = right + wrong[:, IOU_50].sum() / 2  # TP + FP / 2 + FN / 2
    return LabelMetrics(
        msa=float(accuracy.mean()),
        ap50=float(accuracy[:, IOU_50].mean()),
        f1_50=float(right / halves) if halves else math.nan,
        pq=float(sum(c.iou for c in counts) / halves) if halves else math.nan,
        threshold=threshold,
    )
