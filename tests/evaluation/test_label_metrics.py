"""Label maps small enough to count by hand, empty ones, overlaps and crowds."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from diffinst.datasets.records import Annotation, ImageRecord
from diffinst.evaluation.label_metrics import (
    CROWD,
    LabelMetrics,
    count,
    label_metrics,
    paint,
    summarize,
)
from diffinst.evaluation.matching import THRESHOLDS
from diffinst.results.convert import CocoResult

HEIGHT, WIDTH = 4, 12
Box = tuple[int, int, int, int]  # x, y, width, height
Map = NDArray[np.int64]

TRUTH = np.array([[1, 1, 1, 0, 2, 2], [1, 1, 1, 0, 2, 2], [0, 0, 0, 0, 0, 0]])
FOUND = np.array([[1, 1, 0, 0, 0, 7], [1, 1, 0, 0, 0, 7], [3, 0, 0, 0, 0, 0]])
EMPTY = np.zeros_like(TRUTH)


def near(value: Any) -> Any:
    return pytest.approx(value, rel=0, abs=1e-12, nan_ok=True)


def metrics(*pairs: tuple[Map, Map]) -> LabelMetrics:
    """Of pairs of predicted and true label maps."""
    return summarize([count(predicted, truth) for predicted, truth in pairs], 0.5)


def rle(box: Box) -> Any:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    x, y, w, h = box
    mask[y : y + h, x : x + w] = 1
    encoded = coco_mask.encode(mask)
    return {"size": [HEIGHT, WIDTH], "counts": encoded["counts"].decode()}


def found(box: Box, score: float) -> CocoResult:
    bbox = [float(side) for side in box]
    return {
        "image_id": 1,
        "category_id": 1,
        "bbox": bbox,
        "score": score,
        "segmentation": rle(box),
    }


def image(*things: Box, crowds: tuple[Box, ...] = (), image_id: int = 1) -> ImageRecord:
    annotations = []
    for i, box in enumerate((*things, *crowds)):
        x, y, w, h = box
        corners = (float(x), float(y), float(x + w), float(y + h))
        annotations.append(Annotation(i, corners, 0, rle(box), i >= len(things), float(w * h)))
    return ImageRecord(image_id, Path("a.png"), HEIGHT, WIDTH, tuple(annotations))


class TestHandWorked:
    def test_one_image(self) -> None:
        # Object 1: 4 of 6 pixels, IoU 0.67, a hit at 0.50, 0.55, 0.60 and 0.65. Object 2: 2 of 4
        # pixels, IoU 0.5, which is not above 0.5. The single pixel hits nothing. So at 0.50 there
        # are TP 1, FP 2, FN 1: accuracy 1 / 4; the same at three more of the ten thresholds.
        result = metrics((FOUND, TRUTH))
        assert result.ap50 == near(1 / 4)
        assert result.msa == near(4 * 1 / 4 / 10)
        assert result.f1_50 == near(2 / (2 + 2 + 1))
        assert result.pq == near((4 / 6) / (1 + 2 / 2 + 1 / 2))

    def test_accuracies_are_means_over_images_and_the_others_count_objects(self) -> None:
        # The second image has one object, found exactly: accuracy 1 at each threshold. Together
        # TP 2, FP 2, FN 1 at 0.50.
        whole = np.array([[1, 1], [1, 1]])
        result = metrics((FOUND, TRUTH), (whole, whole))
        assert result.ap50 == near((1 / 4 + 1) / 2)
        assert result.msa == near((0.1 + 1) / 2)
        assert result.f1_50 == near(4 / (4 + 2 + 1))
        assert result.pq == near((4 / 6 + 1) / (2 + 2 / 2 + 1 / 2))

    @pytest.mark.parametrize(("pixels", "passed"), [(20, 10), (19, 9), (11, 1), (10, 0)])
    def test_a_hit_is_above_the_threshold(self, pixels: int, passed: int) -> None:
        # IoU 1, 19/20 = 0.95, 11/20 = 0.55 and 1/2, each the value of a threshold but the first.
        truth = np.ones((1, 20), np.int64)
        predicted = truth * (np.arange(20) < pixels)
        assert (count(predicted, truth).hits > 0).sum() == passed
        assert metrics((predicted, truth)).msa == near(passed / 10)

    def test_two_halves_of_an_object_are_two_errors(self) -> None:
        truth = np.ones((2, 4), np.int64)
        assert metrics((np.array([[1, 1, 2, 2]] * 2), truth)).ap50 == 0
        # Five of eight pixels: one right (0.625), one wrong.
        result = metrics((np.array([[1, 1, 2, 2], [1, 1, 1, 2]]), truth))
        assert (result.ap50, result.pq) == near((1 / 2, 0.625 / 1.5))


class TestEmpty:
    def test_nothing_there_and_nothing_found_is_right(self) -> None:
        result = metrics((EMPTY, EMPTY))
        assert (result.msa, result.ap50) == (1, 1)
        assert math.isnan(result.f1_50) and math.isnan(result.pq)  # no object was counted

    def test_an_empty_image_among_others_counts_in_means_over_images_alone(self) -> None:
        alone, both = metrics((FOUND, TRUTH)), metrics((FOUND, TRUTH), (EMPTY, EMPTY))
        assert both.msa == near((alone.msa + 1) / 2) and both.ap50 == near((alone.ap50 + 1) / 2)
        assert (both.f1_50, both.pq) == (alone.f1_50, alone.pq)

    @pytest.mark.parametrize("pair", [(FOUND, EMPTY), (EMPTY, TRUTH)])
    def test_all_wrong(self, pair: tuple[Map, Map]) -> None:
        result = metrics(pair)
        assert (result.msa, result.ap50, result.f1_50, result.pq) == (0, 0, 0, 0)

    def test_no_images_give_no_numbers(self) -> None:
        result = label_metrics([image((0, 0, 2, 2))], {}, 0.5)
        assert all(math.isnan(v) for v in (result.msa, result.ap50, result.f1_50, result.pq))


class TestPaint:
    def test_the_first_shape_is_on_top(self) -> None:
        labels = paint([rle((0, 0, 2, 2)), rle((1, 0, 3, 1)), rle((0, 1, 2, 1))], HEIGHT, WIDTH)
        assert labels[:3, :5].tolist() == [[1, 1, 2, 2, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]]
        assert labels.shape == (HEIGHT, WIDTH) and set(labels.flat) == {0, 1, 2}  # no 3: hidden

    def test_polygons_and_nothing(self) -> None:
        labels = paint([[[1, 0, 4, 0, 4, 2, 1, 2]]], HEIGHT, WIDTH)
        assert labels.sum() == 6 and labels[:2, 1:4].all()
        assert not paint([], HEIGHT, WIDTH).any()


class TestPredictions:
    def test_overlaps_go_to_the_best_score(self) -> None:
        # The best is right. Of the second, 4 + 4 pixels, 4 are left, which hit nothing. Of the
        # third nothing is left, so it counts for nothing. The fourth is below the threshold.
        best, second = found((0, 0, 4, 2), 0.9), found((2, 0, 4, 2), 0.8)
        third, fourth = found((1, 0, 2, 2), 0.7), found((8, 0, 2, 2), 0.4)
        for order in ((best, second, third, fourth), (fourth, third, second, best)):
            result = label_metrics([image((0, 0, 4, 2))], {1: order}, 0.5)
            assert (result.msa, result.ap50) == near((1 / 2, 1 / 2))
            assert (result.f1_50, result.pq) == near((2 / 3, 1 / 1.5))
            assert result.threshold == 0.5
        result = label_metrics([image((0, 0, 4, 2))], {1: [fourth]}, 0.4)
        assert result.f1_50 == 0

    def test_of_overlapping_objects_the_smaller_is_on_top(self) -> None:
        # 8 x 4 pixels with 2 x 2 inside: found as two disjoint objects of 28 and 4 pixels.
        record = image((0, 0, 8, 4), (2, 1, 2, 2))
        hole, whole = found((2, 1, 2, 2), 0.9), found((0, 0, 8, 4), 0.8)
        assert label_metrics([record], {1: [whole, hole]}, 0.5).msa == 1

    def test_what_lies_in_a_crowd_is_ignored(self) -> None:
        # A crowd in columns 4 to 7. The first result is right, 2 more of its pixels lie in the
        # crowd and do not count. Of the second's 4 pixels 3 lie there: ignored. Of the third's 4
        # only 2: wrong.
        record = image((0, 0, 4, 2), crowds=((4, 0, 4, 4),))
        first, second = found((0, 0, 5, 2), 0.9), found((5, 3, 4, 1), 0.8)
        third = found((6, 2, 4, 1), 0.7)
        result = label_metrics([record], {1: [first, second]}, 0.5)
        assert (result.msa, result.f1_50, result.pq) == near((1, 1, 1))
        result = label_metrics([record], {1: [first, second, third]}, 0.5)
        assert (result.msa, result.f1_50) == near((1 / 2, 2 / 3))

    def test_an_object_over_a_crowd_is_one(self) -> None:
        record = image((4, 0, 4, 2), crowds=((0, 0, 12, 4),))
        assert label_metrics([record], {1: [found((4, 0, 4, 2), 0.9)]}, 0.5).f1_50 == 1
        assert label_metrics([record], {1: [found((4, 2, 4, 2), 0.9)]}, 0.5).f1_50 == 0


@given(
    arrays(np.int64, (4, 5), elements=st.integers(0, 3)),
    arrays(np.int64, (4, 5), elements=st.integers(0, 3)),
)
def test_no_other_pairing_would_find_more(predicted: Map, truth: Map) -> None:
    ious = np.zeros((3, 3))  # 0 also where an object is not there
    for p, t in itertools.product((1, 2, 3), repeat=2):
        either = ((predicted == p) | (truth == t)).sum()
        ious[p - 1, t - 1] = ((predicted == p) & (truth == t)).sum() / max(1, either)
    counted = count(predicted, truth)
    n, m = (len(set(labels.flat) - {0}) for labels in (predicted, truth))
    pairings = [ious[range(3), columns] for columns in itertools.permutations(range(3))]
    for i, threshold in enumerate(THRESHOLDS):
        hits = max(int((pairs > threshold).sum()) for pairs in pairings)
        assert (counted.hits[i], counted.false[i], counted.missed[i]) == (hits, n - hits, m - hits)
    assert counted.iou == near(max(pairs[pairs > 0.5].sum() for pairs in pairings))


def test_crowds_of_a_label_map_are_no_objects() -> None:
    truth = np.array([[1, 1, CROWD, CROWD]])
    counted = count(np.array([[1, 1, 2, 2]]), truth)
    assert (counted.hits == 1).all() and not counted.false.any() and not counted.missed.any()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_label_maps_may_be_of_any_integers(dtype: type[np.integer[Any]]) -> None:
    assert metrics((FOUND.astype(dtype), TRUTH.astype(dtype))) == metrics((FOUND, TRUTH))


def test_names_are_those_of_the_field() -> None:
    names = ["mSA", "AP@0.5", "F1@0.5", "PQ", "threshold"]
    assert list(metrics((FOUND, TRUTH)).as_dict("label_map")) == [f"label_map/{n}" for n in names]
