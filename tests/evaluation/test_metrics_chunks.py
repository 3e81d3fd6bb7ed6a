"""Classes taken a few at a time give what all of them give at once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from diffinst.evaluation.inputs import Detection, Truth
from diffinst.evaluation.metrics import accumulate, mean


def random_boxes(rng: np.random.Generator, classes: int) -> tuple[Truth, list[Detection]]:
    """Twenty images; every third class has no objects, some have no results."""
    objects: list[dict[str, object]] = []
    results: list[Detection] = []
    for i in range(300):
        image_id, category_id = int(rng.integers(1, 21)), int(rng.integers(1, classes + 1))
        x, y = rng.uniform(0, 100, 2).tolist()
        w, h = rng.uniform(5, 100, 2).tolist()
        ids = {"image_id": image_id, "category_id": category_id}
        if category_id % 3:
            crowd = int(i % 40 == 0)
            box = {"bbox": [x, y, w, h], "area": w * h}
            objects.append({"id": len(objects) + 1, **ids, **box, "iscrowd": crowd})
        for _ in range(int(rng.integers(0, 3)) if category_id % 4 else 0):
            box = {"bbox": [x + float(rng.normal(0, w / 20)), y, w, h]}
            results.append({**ids, **box, "score": round(float(rng.random()), 1)})
    images: list[dict[str, object]] = [
        {"id": i, "neg_category_ids": [], "not_exhaustive_category_ids": [i % classes, 3, 5]}
        for i in range(1, 21)
    ]
    categories: list[dict[str, object]] = [{"id": i} for i in range(classes, 0, -1)]
    return {"images": images, "annotations": objects, "categories": categories}, results


@pytest.mark.parametrize("federated", [False, True])
@pytest.mark.parametrize("max_pairs", [1, 60, 139])
def test_chunks_change_nothing(federated: bool, max_pairs: int) -> None:
    truth, results = random_boxes(np.random.default_rng(0), classes=7)
    precision, recall = accumulate(truth, results, "bbox", [1, 100], federated=federated)
    parts = accumulate(
        truth, results, "bbox", [1, 100], federated=federated, max_pairs=max_pairs
    )  # 1, 3 and 6 of 7 classes at a time
    assert precision.shape == (10, 101, 7, 4) and recall.shape == (10, 7, 4, 2)
    np.testing.assert_array_equal(parts[0], precision)
    np.testing.assert_array_equal(parts[1], recall)
    assert np.isnan(precision[:, :, [2, 5]]).all()  # classes 3 and 6 have no objects
    assert (precision[:, :, 3, 0] == 0).all()  # class 4 has no results
    assert 0.1 < mean(precision[..., 0]) < 0.9


@pytest.mark.parametrize(
    ("values", "expected"), [([0.5, math.nan, 1.0], 0.75), ([math.nan] * 2, math.nan)]
)
def test_mean_leaves_out_what_is_undefined(values: Any, expected: float) -> None:
    assert mean(np.array(values)) == pytest.approx(expected, nan_ok=True)
    assert mean(np.zeros((0, 3))) == pytest.approx(math.nan, nan_ok=True)
