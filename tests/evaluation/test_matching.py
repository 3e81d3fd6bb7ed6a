"""Squares of 20 x 20 pixels, found, missed, doubled, in crowds, of classes nobody looked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from diffinst.datasets.records import Annotation, ImageRecord
from diffinst.datasets.split import Split
from diffinst.evaluation.matching import THRESHOLDS, match
from diffinst.evaluation.metrics import compute_metrics
from diffinst.results.convert import CocoResult

SIDE = 100
Box = tuple[int, int, int, int]  # x, y, width, height


def rle(box: Box) -> Any:
    mask = np.zeros((SIDE, SIDE), np.uint8, order="F")
    x, y, w, h = box
    mask[y : y + h, x : x + w] = 1
    encoded = coco_mask.encode(mask)
    return {"size": [SIDE, SIDE], "counts": encoded["counts"].decode()}


def thing(box: Box, label: int = 0, crowd: bool = False) -> Annotation:
    x, y, w, h = box
    corners = (float(x), float(y), float(x + w), float(y + h))
    return Annotation(1, corners, label, rle(box), crowd, float(w * h))


def found(box: Box, score: float = 0.9, category_id: int = 10) -> CocoResult:
    return {
        "image_id": 1,
        "category_id": category_id,
        "bbox": [float(side) for side in box],
        "score": score,
        "segmentation": rle(box),
    }


def image(*things: Annotation, **more: Any) -> ImageRecord:
    return ImageRecord(1, Path("a.png"), SIDE, SIDE, things, **more)


def split_of(record: ImageRecord, federated: bool = False) -> Split:
    """Labels 0, 1 are the categories 10, 20."""
    return Split(
        "val", Path("v.json"), ("a", "b"), (10, 20), (record,), Path(), federated=federated
    )


def test_thresholds_are_cocos() -> None:
    np.testing.assert_allclose(THRESHOLDS, np.linspace(0.5, 0.95, 10), atol=1e-12)


def test_found_missed_and_false() -> None:
    record = image(thing((0, 0, 20, 20)), thing((50, 50, 20, 20)))
    results = [found((0, 0, 20, 20)), found((0, 70, 20, 20))]
    matched = match(record, results, split_of(record))
    assert matched.hit.tolist() == [[True, False]] * 10
    assert matched.false.tolist() == [[False, True]] * 10
    assert matched.found.tolist() == [[True, False]] * 10
    assert matched.missed.tolist() == [[False, True]] * 10
    assert matched.f1 == pytest.approx(0.5)  # 2 / (2 + 1 + 1) at every threshold


def test_iou_decides_threshold_by_threshold() -> None:
    # 12 x 20 of 20 x 20: IoU 0.6 passes 0.50, 0.55 and 0.60. F1 is 1 there and 0 elsewhere.
    record = image(thing((0, 0, 20, 20)))
    matched = match(record, [found((0, 0, 12, 20))], split_of(record))
    assert matched.hit[:, 0].tolist() == [True] * 3 + [False] * 7
    assert matched.f1 == pytest.approx(0.3)


def test_each_object_is_found_once_by_the_surest() -> None:
    record = image(thing((0, 0, 20, 20)))
    doubles = [found((0, 0, 20, 20), 0.5), found((0, 0, 20, 18), 0.8)]  # IoU 1 and 0.9
    matched = match(record, doubles, split_of(record))
    assert matched.hit[:9].tolist() == [[False, True]] * 9  # the second up to 0.90
    assert matched.hit[9].tolist() == [True, False]
    assert matched.false.sum() == 10


def test_the_other_class_is_no_match() -> None:
    record = image(thing((0, 0, 20, 20), label=1))
    matched = match(record, [found((0, 0, 20, 20), category_id=10)], split_of(record))
    assert not matched.hit.any() and matched.false.all() and matched.missed.all()
    assert matched.f1 == 0


def test_crowds_take_any_number_and_are_never_missed() -> None:
    record = image(thing((0, 0, 60, 60), crowd=True), thing((70, 70, 20, 20)))
    results = [found((0, 0, 20, 20)), found((30, 30, 20, 20)), found((70, 70, 20, 20), 0.1)]
    matched = match(record, results, split_of(record))
    assert matched.ignored.tolist() == [[True, True, False]] * 10
    assert not matched.missed.any() and not matched.false.any()
    assert matched.f1 == 1


@pytest.mark.parametrize(
    ("negative", "not_exhaustive", "federated", "counts"),
    [
        ((), (), True, False),  # nobody looked for class b
        ((1,), (), True, True),  # it is known to be absent
        ((1,), (1,), True, False),  # and perhaps not
        ((), (), False, True),  # COCO: everything is annotated
    ],
)
def test_classes_not_looked_for(
    negative: Any, not_exhaustive: Any, federated: bool, counts: bool
) -> None:
    record = image(thing((0, 0, 20, 20)), negative=negative, not_exhaustive=not_exhaustive)
    results = [found((0, 0, 20, 20)), found((50, 0, 20, 20), category_id=20)]
    matched = match(record, results, split_of(record, federated))
    assert matched.hit[:, 0].all() and not matched.ignored[:, 0].any()
    assert matched.false[:, 1].tolist() == [counts] * 10


@pytest.mark.parametrize(("things", "results", "f1"), [(0, 0, 1), (1, 0, 0), (0, 1, 0)])
def test_nothing_there(things: int, results: int, f1: float) -> None:
    record = image(*[thing((0, 0, 20, 20))] * things)
    matched = match(record, [found((0, 0, 20, 20))] * results, split_of(record))
    assert matched.hit.shape == (10, results) and matched.found.shape == (10, things)
    assert matched.f1 == f1


@pytest.mark.parametrize("seed", range(3))
def test_counts_are_those_of_cocos_evaluation(seed: int) -> None:
    # Recall at each threshold is the fraction of objects found, class by class.
    rng = np.random.default_rng(seed)
    draws = [(*rng.integers(0, 60, 2), *rng.integers(8, 40, 2)) for _ in range(20)]
    boxes = [(int(x), int(y), int(w), int(h)) for x, y, w, h in draws]
    record = image(*(thing(box, int(rng.integers(2)), bool(rng.random() < 0.1)) for box in boxes))
    results = [
        found((x, y, max(1, w + int(rng.integers(-4, 5))), h), round(float(rng.random()), 1), c)
        for x, y, w, h in boxes
        for c in rng.choice([10, 20], 2).tolist()
    ]
    split = split_of(record)
    matched = match(record, results, split)
    metrics = compute_metrics(split.as_coco(), results)
    labels = np.array([a.label for a in record.annotations])
    recalls = [matched.found[:, (labels == k) & ~matched.crowd].mean() for k in (0, 1)]
    assert np.mean(recalls) == pytest.approx(metrics.ar_max)
    assert 0.1 < metrics.ar_max < 0.99
