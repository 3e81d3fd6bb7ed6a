"""Numbers worked out by hand, COCO's published ones, and the same data through pycocotools."""

import contextlib
import copy
import io
import json
import math
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from diffinst.evaluation.metrics import Metrics, compute_metrics

Record = dict[str, Any]
SIDE = 300  # pixels, height and width of every image drawn here

# Printed in cocoapi's demo notebook (bbox) and in the tests of faster_coco_eval (both).
PUBLISHED = {  # (bbox, segm)
    "ap": (0.5045806987249628, 0.3195452758576433),
    "ap50": (0.6969727247299577, 0.5622883972521636),
    "ap75": (0.5729816669904824, 0.29892653412086784),
    "ap_small": (0.5856257209410443, 0.3873740315997837),
    "ap_medium": (0.5193996948036719, 0.31018272403369485),
    "ap_large": (0.5013978986347466, 0.3269339071005138),
    "ar1": (0.38681277964578054, 0.2682297225711534),
    "ar10": (0.5936795762842003, 0.41544868114906375),
    "ar_max": (0.595352982877607, 0.4168394992198818),
    "ar_small": (0.6398109626113442, 0.4694498622754236),
    "ar_medium": (0.5664205978994309, 0.37675922666197265),
    "ar_large": (0.5642905982905982, 0.3814715099715099),
}


def undefined(value: float | None) -> bool:
    return value is not None and math.isnan(value)


def rectangle(x: float, y: float, width: float, height: float) -> Record:
    """The RLE of a filled box in a SIDE x SIDE image."""
    corners = [x, y, x + width, y, x + width, y + height, x, y + height]
    rle: Record = coco_mask.frPyObjects([corners], SIDE, SIDE)[0]
    return rle


def thing(box: tuple[float, ...], category_id: int = 1, image_id: int = 1, **more: Any) -> Record:
    """An object: box as (x, y, width, height), mask filling it."""
    shape = {"bbox": list(box), "segmentation": rectangle(*box), "area": box[2] * box[3]}
    return {"image_id": image_id, "category_id": category_id, **shape, **more}


def found(box: tuple[float, ...], score: float, category_id: int = 1, image_id: int = 1) -> Record:
    """A result with box and mask."""
    ids = {"image_id": image_id, "category_id": category_id}
    return {**ids, "score": score, "bbox": list(box), "segmentation": rectangle(*box)}


def scene(*things: Record, names: str = "a", num_images: int = 1) -> Record:
    """Ground truth of SIDE x SIDE images; one category per letter."""
    return {
        "images": [{"id": i + 1, "height": SIDE, "width": SIDE} for i in range(num_images)],
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(names)],
        "annotations": [{"id": i + 1, "iscrowd": 0, **thing} for i, thing in enumerate(things)],
    }


def pycocotools_evaluation(
    truth: Record, results: list[Record], iou_type: str, max_detections: int = 100
) -> COCOeval:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(copy.deepcopy(results)), iou_type)
        evaluation.params.maxDets = [1, 10, max_detections]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def numbers_from_arrays(evaluation: COCOeval) -> dict[str, float]:
    """The twelve numbers from pycocotools' arrays, without its summary (which wants 100)."""

    def mean(values: Any) -> float:
        return float(np.mean(values[values > -1])) if (values > -1).any() else math.nan

    precision = evaluation.eval["precision"]  # thresholds, recalls, classes, areas, limits
    recall = evaluation.eval["recall"]  # thresholds, classes, areas, limits
    numbers = {
        "ap": mean(precision[:, :, :, 0, 2]),
        "ap50": mean(precision[0, :, :, 0, 2]),
        "ap75": mean(precision[5, :, :, 0, 2]),
        "ap90": mean(precision[8, :, :, 0, 2]),
        "ar1": mean(recall[:, :, 0, 0]),
        "ar10": mean(recall[:, :, 0, 1]),
        "ar_max": mean(recall[:, :, 0, 2]),
    }
    for area, name in enumerate(("small", "medium", "large"), start=1):
        numbers[f"ap_{name}"] = mean(precision[:, :, :, area, 2])
        numbers[f"ar_{name}"] = mean(recall[:, :, area, 2])
    return numbers


def numbers_of(metrics: Metrics) -> dict[str, float]:
    values = {f.name: getattr(metrics, f.name) for f in fields(metrics)}
    return {name: value for name, value in values.items() if isinstance(value, float)}


def near(expected: Any) -> Any:
    return pytest.approx(expected, rel=0, abs=1e-9, nan_ok=True)


class TestHandWorked:
    """Scenes of a few boxes; 10 IoU thresholds, 101 recall points."""

    @pytest.mark.parametrize("iou_type", ["segm", "bbox"])
    def test_perfect_results_score_one(self, iou_type: Any) -> None:
        boxes = [(10, 10, 40, 40), (100, 100, 50, 60)]
        truth = scene(*map(thing, boxes))
        metrics = compute_metrics(truth, [found(box, 0.5) for box in boxes], iou_type=iou_type)
        assert (metrics.ap, metrics.ap50, metrics.ap75) == near((1, 1, 1))
        assert (metrics.ar_max, metrics.ar10, metrics.ar1) == near((1, 1, 0.5))  # 1 of 2 objects

    def test_one_of_two_objects_found(self) -> None:
        # Precision is 1 up to recall 1/2: the points 0.00, ..., 0.50, which are 51 of 101.
        truth = scene(thing((10, 10, 40, 40)), thing((100, 100, 40, 40)))
        metrics = compute_metrics(truth, [found((10, 10, 40, 40), 0.9)])
        assert metrics.ap == near(0.504950495049505)
        assert metrics.ap == near(51 / 101)
        assert metrics.ar_max == near(0.5)

    @pytest.mark.parametrize(("score", "ap"), [(0.9, 0.5), (0.1, 1.0)])
    def test_false_positive_counts_when_it_comes_first(self, score: float, ap: float) -> None:
        # First: precision at recall 1 is 1 of 2 results. Last: recall 1 is reached before it.
        results = [found((10, 10, 40, 40), 0.5), found((200, 200, 40, 40), score)]
        assert compute_metrics(scene(thing((10, 10, 40, 40))), results).ap == near(ap)

    def test_double_detection_is_a_false_positive(self) -> None:
        # Two objects; results in order of score: hit, double, hit. Precision 1 up to recall 1/2
        # (51 points), then 2/3 (50 points).
        first, second = (10, 10, 40, 40), (100, 100, 40, 40)
        results = [found(first, 0.9), found(first, 0.8), found(second, 0.7)]
        ap = compute_metrics(scene(thing(first), thing(second)), results).ap
        assert ap == near((51 + 50 * 2 / 3) / 101)

    @pytest.mark.parametrize("iou_type", ["segm", "bbox"])
    def test_iou_of_exactly_a_threshold_counts(self, iou_type: Any) -> None:
        # 24 x 40 of 40 x 40 pixels: IoU 0.6 passes 0.50, 0.55 and 0.60, three of ten thresholds;
        # 36 x 40: IoU 0.9 passes nine of them, 0.90 the last.
        truth = scene(thing((10, 10, 40, 40)))
        metrics = compute_metrics(truth, [found((10, 10, 24, 40), 0.9)], iou_type=iou_type)
        assert (metrics.ap, metrics.ap50, metrics.ap75) == near((0.3, 1, 0))
        assert metrics.ar_max == near(0.3)
        metrics = compute_metrics(truth, [found((10, 10, 36, 40), 0.9)], iou_type=iou_type)
        assert (metrics.ap, metrics.ap75, metrics.ap90) == near((0.9, 1, 1))
        metrics = compute_metrics(truth, [found((10, 10, 35, 40), 0.9)], iou_type=iou_type)
        assert (metrics.ap, metrics.ap75, metrics.ap90) == near((0.8, 1, 0))

    @pytest.mark.parametrize(("iscrowd", "ap"), [(1, 1.0), (0, 51 / 101 / 3)])
    @pytest.mark.parametrize("iou_type", ["segm", "bbox"])
    def test_crowd_region_absorbs_results(self, iscrowd: int, ap: float, iou_type: Any) -> None:
        # Two results with the higher scores lie inside the crowd region, so they do not count and
        # neither does the region: one object, one hit. Were the region an ordinary object, it
        # would be missed (IoU 1/25): recall ends at 1/2 (51 points) with precision 1/3.
        truth = scene(thing((10, 10, 40, 40)), thing((100, 100, 100, 100), iscrowd=iscrowd))
        results = [
            found((110, 110, 20, 20), 0.9),
            found((150, 150, 20, 20), 0.8),
            found((10, 10, 40, 40), 0.5),
        ]
        assert compute_metrics(truth, results, iou_type=iou_type).ap == near(ap)

    def test_class_without_objects_is_left_out(self) -> None:
        # a: found, b: missed, c: no objects, though a result claims one. Mean of 1 and 0.
        truth = scene(thing((10, 10, 40, 40)), thing((100, 10, 40, 40), category_id=2), names="abc")
        results = [found((10, 10, 40, 40), 0.5), found((200, 10, 40, 40), 0.9, category_id=3)]
        metrics = compute_metrics(truth, results)
        assert metrics.ap == near(0.5)
        assert metrics.per_class == near({"a": 1.0, "b": 0.0, "c": math.nan})
        assert metrics.precision is not None
        assert metrics.precision.shape == (10, 101, 3)
        assert metrics.precision[..., 0] == near(np.ones((10, 101)))
        assert metrics.precision[..., 1] == near(np.zeros((10, 101)))
        assert np.isnan(metrics.precision[..., 2]).all()

    def test_class_names_follow_category_ids_not_their_order_in_the_file(self) -> None:
        truth = scene(thing((10, 10, 40, 40), category_id=7), thing((99, 9, 40, 40), category_id=3))
        truth["categories"] = [{"id": 7, "name": "seven"}, {"id": 3, "name": "three"}]
        metrics = compute_metrics(truth, [found((10, 10, 40, 40), 0.5, category_id=7)])
        assert list(metrics.per_class.items()) == [("three", 0.0), ("seven", near(1.0))]

    def test_areas_are_apart(self) -> None:
        # 10 x 10 is small (< 1024), 40 x 40 medium, 100 x 100 large (> 9216). The medium one is
        # missed: recall 2/3 overall reaches 0.00, ..., 0.66, which are 67 of 101 points.
        small, medium, large = (10, 10, 10, 10), (50, 50, 40, 40), (150, 150, 100, 100)
        truth = scene(*map(thing, (small, medium, large)))
        metrics = compute_metrics(truth, [found(small, 0.9), found(large, 0.8)])
        assert (metrics.ap_small, metrics.ap_medium, metrics.ap_large) == near((1, 0, 1))
        assert (metrics.ar_small, metrics.ar_medium, metrics.ar_large) == near((1, 0, 1))
        assert metrics.ap == near(67 / 101)
        only_small = compute_metrics(scene(thing(small)), [found(small, 0.9)])
        assert math.isnan(only_small.ap_medium)
        assert math.isnan(only_small.ar_large)

    @pytest.mark.parametrize(
        ("max_detections", "recall", "ap"), [(1, 1 / 3, 34 / 101), (2, 2 / 3, 67 / 101), (3, 1, 1)]
    )
    def test_results_beyond_the_limit_are_dropped(
        self, max_detections: int, recall: float, ap: float
    ) -> None:
        # Three small objects, all found: one result reaches recall 1/3 (points 0.00 to 0.33), two
        # reach 2/3. The areas use the same limit.
        boxes = [(10, 10, 20, 20), (50, 50, 20, 20), (90, 90, 20, 20)]
        results = [found(box, 0.5 + i / 10) for i, box in enumerate(boxes)]
        metrics = compute_metrics(scene(*map(thing, boxes)), results, max_detections=max_detections)
        assert (metrics.ap, metrics.ap_small) == near((ap, ap))
        assert (metrics.ar_max, metrics.ar_small) == near((recall, recall))
        assert metrics.ar1 == near(1 / 3)
        assert undefined(metrics.ar10)

    def test_limit_counts_per_image_and_class(self) -> None:
        truth = scene(
            thing((10, 10, 40, 40)),
            thing((10, 10, 40, 40), image_id=2),
            thing((10, 10, 40, 40), category_id=2),
            names="ab",
            num_images=2,
        )
        results = [
            found((10, 10, 40, 40), 0.5, category_id, image_id)
            for category_id, image_id in ((1, 1), (1, 2), (2, 1))
        ]
        assert compute_metrics(truth, results, max_detections=1).ap == near(1)

    def test_object_of_annotation_id_zero_can_be_found(self) -> None:
        # The COCO tools note the id of the object matched and read 0 as "none".
        truth = scene(thing((10, 10, 40, 40), id=0))
        assert compute_metrics(truth, [found((10, 10, 40, 40), 0.9)]).ap == near(1)


class TestNothingThere:
    def test_no_results_score_zero_where_there_are_objects(self) -> None:
        metrics = compute_metrics(scene(thing((10, 10, 40, 40)), names="ab"), [])
        assert (metrics.ap, metrics.ap50, metrics.ar_max, metrics.ap_medium) == (0, 0, 0, 0)
        assert metrics.per_class == near({"a": 0.0, "b": math.nan})
        assert math.isnan(metrics.ap_small)

    @pytest.mark.parametrize("results", [[], [found((10, 10, 40, 40), 0.9)]])
    def test_no_objects_give_nan(self, results: list[Record]) -> None:
        metrics = compute_metrics(scene(), results)
        assert all(math.isnan(value) for value in numbers_of(metrics).values())
        assert metrics.per_class == near({"a": math.nan})

    def test_no_images_and_no_categories_give_nan(self) -> None:
        metrics = compute_metrics({"images": [], "annotations": [], "categories": []}, [])
        assert all(math.isnan(value) for value in numbers_of(metrics).values())
        assert metrics.per_class == {}

    def test_images_without_objects_still_hold_false_positives(self) -> None:
        truth = scene(thing((10, 10, 40, 40)), num_images=3)
        hit, miss = found((10, 10, 40, 40), 0.5), found((10, 10, 40, 40), 0.9, image_id=2)
        assert compute_metrics(truth, [hit]).ap == near(1)
        assert compute_metrics(truth, [hit, miss]).ap == near(0.5)

    @pytest.mark.parametrize("iou_type", ["segm", "bbox"])
    @pytest.mark.parametrize("box", [(10, 10, 0, 0), (10, 10, 0, 40)])
    def test_results_without_area_are_false_positives(self, box: Any, iou_type: Any) -> None:
        nothing = coco_mask.encode(np.zeros((SIDE, SIDE), np.uint8, order="F"))
        results = [found(box, 0.9) | {"segmentation": nothing}, found((10, 10, 40, 40), 0.5)]
        truth = scene(thing((10, 10, 40, 40)))
        assert compute_metrics(truth, results, iou_type=iou_type).ap == near(0.5)


class TestBoxesAndMasksTogether:
    """A false alarm whose box is 40 x 40 (medium) and whose mask is 10 x 40 (small)."""

    TRUTH = scene(thing((10, 10, 10, 10)), thing((50, 50, 40, 40)))
    RESULTS = (
        found((200, 200, 40, 40), 0.9) | {"segmentation": rectangle(200, 200, 10, 40)},
        found((10, 10, 10, 10), 0.5),
        found((50, 50, 40, 40), 0.5),
    )

    def test_the_area_is_that_of_what_is_compared(self) -> None:
        boxes = compute_metrics(self.TRUTH, self.RESULTS, iou_type="bbox")
        masks = compute_metrics(self.TRUTH, self.RESULTS, iou_type="segm")
        assert (boxes.ap_small, boxes.ap_medium) == near((1, 0.5))
        assert (masks.ap_small, masks.ap_medium) == near((0.5, 1))

    @pytest.mark.parametrize(("iou_type", "other"), [("bbox", "segmentation"), ("segm", "bbox")])
    def test_the_other_key_changes_nothing(self, iou_type: Any, other: str) -> None:
        bare = [{k: v for k, v in result.items() if k != other} for result in self.RESULTS]
        with_both = numbers_of(compute_metrics(self.TRUTH, self.RESULTS, iou_type=iou_type))
        assert with_both == near(numbers_of(compute_metrics(self.TRUTH, bare, iou_type=iou_type)))
        mixed = [self.RESULTS[0], *bare[1:]]  # the COCO tools look at the first result's keys
        assert with_both == near(numbers_of(compute_metrics(self.TRUTH, mixed, iou_type=iou_type)))


class TestAgainstPycocotools:
    @pytest.fixture
    def fixture_dir(self, shared_dir: Path) -> Path:
        return shared_dir / "datasets" / "coco_eval_fixture"

    @pytest.mark.parametrize("iou_type", ["bbox", "segm"])
    def test_cocos_own_demo(
        self, fixture_dir: Path, iou_type: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        truth_path = fixture_dir / "instances_val2014_100.json"
        truth = json.loads(truth_path.read_text())
        results_name = f"instances_val2014_fake{iou_type}100_results.json"
        results = json.loads((fixture_dir / results_name).read_text())
        inputs = copy.deepcopy((truth, results))
        column = ("bbox", "segm").index(iou_type)
        published = {name: values[column] for name, values in PUBLISHED.items()}
        capsys.readouterr()

        metrics = compute_metrics(truth, results, iou_type=iou_type)

        assert capsys.readouterr() == ("", "")
        assert (truth, results) == inputs
        assert {name: getattr(metrics, name) for name in published} == near(published)
        evaluation = pycocotools_evaluation(truth, results, iou_type)
        assert numbers_of(metrics) == near(numbers_from_arrays(evaluation))
        expected = evaluation.eval["precision"][..., 0, 2]
        np.testing.assert_allclose(
            metrics.precision, np.where(expected > -1, expected, np.nan), rtol=0, atol=1e-9
        )
        from_file = compute_metrics(truth_path, results, iou_type=iou_type)
        assert numbers_of(from_file) == near(numbers_of(metrics))

    @pytest.mark.parametrize("iou_type", ["bbox", "segm"])
    @pytest.mark.parametrize("max_detections", [100, 500])
    def test_crowded_images(self, iou_type: Any, max_detections: int) -> None:
        # Two images of 150 objects in two classes, 1.6 results each with scores that often tie,
        # so the limit of 100 cuts and that of 500 does not.
        rng = np.random.default_rng(0)
        things: list[Record] = []
        results: list[Record] = []
        for image_id in (1, 2):
            for i in range(150):
                category_id = 1 if i < 140 else 2
                corner, size = rng.uniform(0, 180, 2), rng.uniform(5, 110, 2)
                box = np.concatenate([corner, size])
                crowd = int(i % 50 == 0)
                things.append(thing(tuple(box), category_id, image_id, iscrowd=crowd))
                for _ in range(1 + int(rng.random() < 0.6)):
                    shifted = tuple(box + rng.normal(0, 0.04, 4) * np.tile(size, 2))
                    score = round(float(rng.random()), 2)
                    results.append(found(shifted, score, category_id, image_id))
        truth = scene(*things, names="ab", num_images=2)
        key = "segmentation" if iou_type == "segm" else "bbox"
        bare = [{k: r[k] for k in ("image_id", "category_id", "score", key)} for r in results]

        metrics = compute_metrics(truth, results, iou_type=iou_type, max_detections=max_detections)

        evaluation = pycocotools_evaluation(truth, bare, iou_type, max_detections)
        assert numbers_of(metrics) == near(numbers_from_arrays(evaluation))
        fewer = compute_metrics(truth, results, iou_type=iou_type, max_detections=50)
        assert fewer.ap < metrics.ap - 0.05
        assert fewer.ar_small < metrics.ar_small


class TestErrors:
    TRUTH = scene(thing((10, 10, 40, 40)))
    RESULT = found((10, 10, 40, 40), 0.9)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"image_id": 5}, r"^results: image ids 5 are not among the 1 of the ground truth; "),
            ({"category_id": 0}, r"^results: category ids 0 are not among the 1 .*; map labels to"),
            ({"image_id": "1"}, r"^results\[1\]: image_id is '1', expected an integer$"),
            ({"category_id": 1.5}, r"^results\[1\]: category_id is 1.5, expected an integer$"),
            ({"score": math.nan}, r"^results\[1\]: score is nan, expected a finite number$"),
            ({"score": None}, r"^results\[1\]: score is None, expected a finite number$"),
            ({"segmentation": []}, r"^results\[1\]: segmentation is no compressed RLE"),
            ({"segmentation": {"size": [SIDE, SIDE], "counts": [9]}}, r"no compressed RLE"),
            (
                {"segmentation": {"size": [28, 28], "counts": "`h0"}},
                r"\[28, 28\], that of image 1 is \[300, 300\]; paste masks into the full image$",
            ),
        ],
    )
    def test_wrong_values(self, change: Record, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            compute_metrics(self.TRUTH, [self.RESULT, self.RESULT | change])

    @pytest.mark.parametrize("bbox", [None, [], [1, 2, 3], [1, 2, 3, math.inf], ["a", 1, 2, 3]])
    def test_wrong_boxes(self, bbox: object) -> None:
        with pytest.raises(ValueError, match=r"^results\[0\]: bbox is .*, expected "):
            compute_metrics(self.TRUTH, [self.RESULT | {"bbox": bbox}], iou_type="bbox")

    @pytest.mark.parametrize(
        ("iou_type", "key"),
        [
            ("segm", "image_id"),
            ("segm", "category_id"),
            ("segm", "score"),
            ("segm", "segmentation"),
            ("bbox", "bbox"),
        ],
    )
    def test_missing_keys(self, iou_type: Any, key: str) -> None:
        result = {k: v for k, v in self.RESULT.items() if k != key}
        with pytest.raises(ValueError, match=rf"^results\[0\] lacks {key}; it needs image_id, "):
            compute_metrics(self.TRUTH, [result], iou_type=iou_type)

    def test_many_unknown_ids_are_cut_short(self) -> None:
        results = [self.RESULT | {"image_id": i} for i in range(20, 7, -1)]
        with pytest.raises(ValueError, match=r"image ids 8, 9, .*, 16, 17 and 3 more are not"):
            compute_metrics(self.TRUTH, results)

    @pytest.mark.parametrize(
        ("part", "key"),
        [
            ("images", "height"),
            ("annotations", "area"),
            ("annotations", "segmentation"),
            ("categories", "name"),
        ],
    )
    def test_ground_truth_with_missing_keys(self, part: str, key: str) -> None:
        truth = copy.deepcopy(self.TRUTH)
        del truth[part][0][key]
        with pytest.raises(ValueError, match=rf"^ground truth: {part}\[0\] lacks {key}; it needs"):
            compute_metrics(truth, [])

    def test_ground_truth_file_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "test-dev.json"
        path.write_text(json.dumps({"images": [], "categories": []}))
        with pytest.raises(ValueError, match=r"^test-dev\.json lacks annotations; it needs images"):
            compute_metrics(path, [])
        with pytest.raises(FileNotFoundError, match=r"nowhere\.json"):
            compute_metrics(tmp_path / "nowhere.json", [])

    def test_two_categories_of_one_name(self) -> None:
        with pytest.raises(ValueError, match=r"categories\[1\]: a second category 'a'"):
            compute_metrics(scene(names="aa"), [])

    @pytest.mark.parametrize("iou_type", ["mask", "keypoints"])
    def test_unknown_iou_type(self, iou_type: Any) -> None:
        with pytest.raises(ValueError, match=rf"iou_type is '{iou_type}', expected 'segm'"):
            compute_metrics(self.TRUTH, [], iou_type=iou_type)

    @pytest.mark.parametrize("max_detections", [0, -1, 1.5])
    def test_wrong_limit(self, max_detections: Any) -> None:
        with pytest.raises(ValueError, match=r"^max_detections is .*, expected an integer of at"):
            compute_metrics(self.TRUTH, [], max_detections=max_detections)


class TestMetrics:
    def test_log_names(self) -> None:
        metrics = compute_metrics(scene(thing((10, 10, 40, 40))), [found((10, 10, 24, 40), 0.9)])
        log = metrics.as_dict("mask")
        assert list(log) == [
            "mask/AP",
            "mask/AP50",
            "mask/AP75",
            "mask/AP90",
            "mask/AP_small",
            "mask/AP_medium",
            "mask/AP_large",
            "mask/AR1",
            "mask/AR10",
            "mask/AR_max",
            "mask/AR_small",
            "mask/AR_medium",
            "mask/AR_large",
        ]
        assert list(log.values()) == near(list(numbers_of(metrics).values()))
        assert (log["mask/AP"], log["mask/AP50"], log["mask/AP75"]) == near((0.3, 1, 0))

    def test_is_frozen(self) -> None:
        with pytest.raises(FrozenInstanceError):
            compute_metrics(scene(), []).ap = 1.0  # type: ignore[misc]
