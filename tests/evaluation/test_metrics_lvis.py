"""Numbers worked out by hand, and the same data through the package `lvis`."""

import copy
import json
import math
from dataclasses import FrozenInstanceError
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from diffinst.evaluation.metrics import Metrics, compute_metrics

Record = dict[str, Any]
lvis_metrics = partial(compute_metrics, federated=True)
SIDE = 200  # pixels, height and width of every image drawn here
OFFICIAL = {  # our names by those of the package
    "AP": "ap",
    "AP50": "ap50",
    "AP75": "ap75",
    "APs": "ap_small",
    "APm": "ap_medium",
    "APl": "ap_large",
    "APr": "ap_rare",
    "APc": "ap_common",
    "APf": "ap_frequent",
    "AR@300": "ar_max",
    "ARs@300": "ar_small",
    "ARm@300": "ar_medium",
    "ARl@300": "ar_large",
}
BOX, ELSEWHERE = (10.0, 10.0, 40.0, 40.0), (120.0, 120.0, 40.0, 40.0)


def undefined(value: float | None) -> bool:
    return value is not None and math.isnan(value)


def rectangle(box: tuple[float, ...], height: int = SIDE, width: int = SIDE) -> Record:
    x, y, w, h = box
    corners = [x, y, x + w, y, x + w, y + h, x, y + h]
    rle: Record = coco_mask.frPyObjects([corners], height, width)[0]
    return rle


def thing(box: tuple[float, ...] = BOX, category_id: int = 1, image_id: int = 1) -> Record:
    shape = {"bbox": list(box), "segmentation": rectangle(box), "area": box[2] * box[3]}
    return {"image_id": image_id, "category_id": category_id, **shape}


def found(
    box: tuple[float, ...] = BOX, score: float = 0.9, category_id: int = 1, image_id: int = 1
) -> Record:
    shape = {"bbox": list(box), "segmentation": rectangle(box)}
    return {"image_id": image_id, "category_id": category_id, "score": score, **shape}


def scene(
    *things: Record,
    frequency: str = "f",
    num_images: int = 1,
    negative: tuple[int, ...] = (),
    not_exhaustive: tuple[int, ...] = (),
) -> Record:
    """Ground truth; one category per letter of `frequency`, the same lists for every image."""
    lists = {"neg_category_ids": [*negative], "not_exhaustive_category_ids": [*not_exhaustive]}
    return {
        "images": [
            {"id": i + 1, "height": SIDE, "width": SIDE, **lists} for i in range(num_images)
        ],
        "categories": [
            {"id": i + 1, "name": f"class {i + 1}", "frequency": f} for i, f in enumerate(frequency)
        ],
        "annotations": [{"id": i + 1, **thing} for i, thing in enumerate(things)],
    }


def near(expected: Any, tolerance: float = 1e-9) -> Any:
    return pytest.approx(expected, rel=0, abs=tolerance, nan_ok=True)


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
class TestHandWorked:
    """Scenes of a few boxes; 10 IoU thresholds, 101 recall points."""

    def test_perfect_results_score_one(self, iou_type: Any) -> None:
        truth = scene(thing(), thing(ELSEWHERE, 2), frequency="rc")
        metrics = lvis_metrics(truth, [found(), found(ELSEWHERE, 0.1, 2)], iou_type=iou_type)
        assert (metrics.ap, metrics.ap50, metrics.ap75, metrics.ar_max) == near((1, 1, 1, 1))
        assert (metrics.ap_rare, metrics.ap_common) == near((1, 1))
        assert undefined(metrics.ap_frequent) and math.isnan(metrics.ap_small)
        assert metrics.ap_medium == near(1)  # 40 x 40 = 1600 pixels

    def test_half_right(self, iou_type: Any) -> None:
        # One of two objects: precision 1 at the recalls 0.00, ..., 0.50, which are 51 of 101.
        metrics = lvis_metrics(scene(thing(), thing(ELSEWHERE)), [found()], iou_type=iou_type)
        assert (metrics.ap, metrics.ap_frequent, metrics.ar_max) == near((51 / 101, 51 / 101, 0.5))

    @pytest.mark.parametrize("results", [[], [found(ELSEWHERE)]])
    def test_useless_results_score_zero(self, results: list[Record], iou_type: Any) -> None:
        metrics = lvis_metrics(scene(thing()), results, iou_type=iou_type)
        assert (metrics.ap, metrics.ap50, metrics.ar_max, metrics.ap_frequent) == (0, 0, 0, 0)

    def test_a_class_not_looked_for_is_ignored(self, iou_type: Any) -> None:
        # Class 1 is annotated on image 1 only: what is found on image 2 may well be there.
        results = [found(score=0.5), found(score=0.9, image_id=2)]
        truth = scene(thing(), num_images=2)
        assert lvis_metrics(truth, results, iou_type=iou_type).ap == near(1)

    def test_a_class_known_to_be_absent_is_a_false_positive(self, iou_type: Any) -> None:
        # As above, but class 1 is in neg_category_ids: the false alarm comes first, so precision
        # is 1 of 2 at every recall.
        results = [found(score=0.5), found(score=0.9, image_id=2)]
        truth = scene(thing(), num_images=2, negative=(1,))
        assert lvis_metrics(truth, results, iou_type=iou_type).ap == near(0.5)

    @pytest.mark.parametrize(("not_exhaustive", "ap"), [((1,), 1.0), ((2,), 0.5)])
    def test_false_positives_of_a_class_not_annotated_exhaustively_are_ignored(
        self, not_exhaustive: tuple[int, ...], ap: float, iou_type: Any
    ) -> None:
        truth = scene(thing(), frequency="ff", not_exhaustive=not_exhaustive)
        results = [found(ELSEWHERE, 0.9), found(score=0.5)]
        assert lvis_metrics(truth, results, iou_type=iou_type).ap == near(ap)

    def test_hits_of_a_class_not_annotated_exhaustively_count(self, iou_type: Any) -> None:
        truth = scene(thing(), thing(ELSEWHERE), not_exhaustive=(1,))
        assert lvis_metrics(truth, [found()], iou_type=iou_type).ap == near(51 / 101)

    def test_only_the_best_300_of_an_image_count(self, iou_type: Any) -> None:
        # 300 results of a class that is not even looked for, as sure as the only hit: of equal
        # scores the first ones stay.
        truth = scene(thing(), frequency="ff")
        noise = [found(ELSEWHERE, 0.9, 2) for _ in range(300)]
        assert lvis_metrics(truth, [*noise[1:], found()], iou_type=iou_type).ap == near(1)
        assert lvis_metrics(truth, [*noise, found()], iou_type=iou_type).ap == 0
        assert lvis_metrics(truth, [found(), *noise], iou_type=iou_type).ap == near(1)
        assert lvis_metrics(truth, [*noise, found(score=0.91)], iou_type=iou_type).ap == near(1)
        more = lvis_metrics(truth, [*noise, found()], iou_type=iou_type, max_detections=301)
        assert more.ap == near(1)

    def test_the_limit_is_per_image(self, iou_type: Any) -> None:
        truth = scene(thing(), thing(image_id=2), num_images=2)
        results = [found(), found(image_id=2)]
        metrics = lvis_metrics(truth, results, iou_type=iou_type, max_detections=1)
        assert (metrics.ap, metrics.ar_max) == near((1, 1))

    def test_frequencies_are_apart(self, iou_type: Any) -> None:
        # Classes r, c, c, f: found, found, missed, found. AP = 3/4, common 1/2.
        truth = scene(*(thing(category_id=i) for i in (1, 2, 3, 4)), frequency="rccf")
        results = [found(category_id=i) for i in (1, 2, 4)]
        metrics = lvis_metrics(truth, results, iou_type=iou_type)
        assert metrics.ap == near(0.75)
        assert (metrics.ap_rare, metrics.ap_common, metrics.ap_frequent) == near((1, 0.5, 1))
        assert list(metrics.per_class.values()) == near([1, 1, 0, 1])

    def test_there_are_no_crowds(self, iou_type: Any) -> None:
        # COCO would ignore the region and what lies in it; LVIS counts it as an object, missed.
        truth = scene(thing(), {**thing((100, 100, 80, 80)), "iscrowd": 1})
        results = [found(), found((110, 110, 20, 20), 0.95)]
        assert compute_metrics(truth, results, iou_type=iou_type).ap == near(1)
        # false alarm first: precision 1/2 up to recall 1/2
        assert lvis_metrics(truth, results, iou_type=iou_type).ap == near(51 / 101 / 2)

    def test_results_without_area_are_left_out(self, iou_type: Any) -> None:
        nothing = coco_mask.encode(np.zeros((SIDE, SIDE), np.uint8, order="F"))
        empty = {**found((10, 10, 0, 40), 0.95), "segmentation": nothing}
        assert lvis_metrics(scene(thing()), [empty, found()], iou_type=iou_type).ap == near(1)

    def test_objects_without_area_are_left_out(self, iou_type: Any) -> None:
        # so class 2 was not looked for
        truth = scene(thing(), {**thing(ELSEWHERE, 2), "area": 0}, frequency="ff")
        metrics = lvis_metrics(truth, [found(), found(category_id=2)], iou_type=iou_type)
        assert metrics.per_class == near({"class 1": 1.0, "class 2": math.nan})

    def test_no_objects_give_nan(self, iou_type: Any) -> None:
        metrics = lvis_metrics(scene(negative=(1,)), [found()], iou_type=iou_type)
        assert all(math.isnan(value) for value in metrics.as_dict("mask").values())
        nothing: Record = {"images": [], "annotations": [], "categories": []}
        assert math.isnan(lvis_metrics(nothing, [], iou_type=iou_type).ap)


def official(truth: Record, results: list[Record], iou_type: str, folder: Path) -> dict[str, float]:
    """The numbers of the package, which reads a file and ends in an error without results."""
    lvis = pytest.importorskip("lvis", reason="the package lvis is not installed")
    path = folder / "truth.json"
    path.write_text(json.dumps(truth, default=bytes.decode))
    key = "segmentation" if iou_type == "segm" else "bbox"
    # With boxes at hand the package takes their areas for those of the masks.
    bare = [{k: r[k] for k in ("image_id", "category_id", "score", key)} for r in results]
    truth_api = lvis.LVIS(str(path))
    evaluation = lvis.LVISEval(
        truth_api, lvis.LVISResults(truth_api, copy.deepcopy(bare)), iou_type
    )
    evaluation.run()
    numbers = evaluation.get_results()
    return {ours: numbers[name] for name, ours in OFFICIAL.items()}


def undefined_as_nan(numbers: dict[str, float]) -> dict[str, float]:
    return {name: math.nan if value == -1 else value for name, value in numbers.items()}


def jittered(box: Any, rng: np.random.Generator, spread: float) -> tuple[float, ...]:
    x, y, w, h = box
    move = rng.normal(0, spread, 4) * np.array([w, h, w, h])
    return (
        float(x + move[0]),
        float(y + move[1]),
        max(1.0, float(w + move[2])),
        max(1.0, float(h + move[3])),
    )


def random_scene(seed: int) -> tuple[Record, list[Record]]:
    """Twelve images of nine classes with all that LVIS knows; scores tie, one image is full."""
    rng = np.random.default_rng(seed)
    images, things, results = [], [], []
    for image_id in range(1, 13):
        present = rng.choice(np.arange(1, 10), size=rng.integers(0, 5), replace=False)
        absent = [int(c) for c in range(1, 10) if c not in present and rng.random() < 0.3]
        partly = [int(c) for c in range(1, 10) if rng.random() < 0.2]
        lists = {"neg_category_ids": absent, "not_exhaustive_category_ids": partly}
        images.append({"id": image_id, "height": SIDE, "width": SIDE, **lists})
        boxes: list[tuple[tuple[float, ...], int]] = []
        for category in present:
            for _ in range(rng.integers(1, 6)):
                corner, size = rng.uniform(0, 90, 2), rng.uniform(5, 105, 2)
                box = tuple(map(float, (*corner, *size)))
                things.append(thing(box, int(category), image_id))
                boxes.append((box, int(category)))
        for box, category in boxes:
            for _ in range(rng.integers(0, 3)):
                wrong = rng.random() < 0.15
                label = int(rng.integers(1, 10)) if wrong else category
                score = round(float(rng.random()), 2)
                results.append(found(jittered(box, rng, 0.05), score, label, image_id))
        for _ in range(400 if image_id == 5 else 6):
            corner, size = rng.uniform(0, 90, 2), rng.uniform(5, 105, 2)
            box = tuple(map(float, (*corner, *size)))
            results.append(
                found(box, round(float(rng.random()), 2), int(rng.integers(1, 10)), image_id)
            )
    truth = scene(*things, frequency="rrcccfffr")
    return {**truth, "images": images}, results


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
class TestAgainstThePackage:
    @pytest.fixture(autouse=True)
    def old_numpy_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(np, "float", float, raising=False)  # the package still says np.float

    @pytest.mark.parametrize("iou_type", ["segm", "bbox"])
    @pytest.mark.parametrize("seed", range(4))
    def test_random_scenes(self, iou_type: Any, seed: int, tmp_path: Path) -> None:
        truth, results = random_scene(seed)
        before = copy.deepcopy((truth, results))
        metrics = lvis_metrics(truth, results, iou_type=iou_type)
        assert str((truth, results)) == str(before)
        expected = undefined_as_nan(official(truth, results, iou_type, tmp_path))
        assert {name: getattr(metrics, name) for name in expected} == near(expected)
        assert 0.05 < metrics.ap < 0.95
        plain = compute_metrics(truth, results, iou_type=iou_type, max_detections=300)
        assert abs(plain.ap - metrics.ap) > 1e-3  # the rules matter here

    @pytest.mark.parametrize("iou_type", ["segm", "bbox"])
    def test_real_annotations(self, iou_type: Any, shared_dir: Path, tmp_path: Path) -> None:
        # 100 images, 1230 classes, 977 objects as polygons. Results: most objects a little off,
        # some under a wrong name, and false alarms of classes of all three kinds.
        file = shared_dir / "datasets" / "lvis_fixture" / "annotations" / "lvis_val_100.json"
        truth = json.loads(file.read_text())
        sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
        negative = {image["id"]: image["neg_category_ids"] for image in truth["images"]}
        rng = np.random.default_rng(0)
        results = []
        for annotation in truth["annotations"]:
            height, width = sizes[annotation["image_id"]]
            for _ in range(int(rng.integers(0, 4))):
                spread = float(rng.choice([0.0, 0.01, 0.05, 0.2]))
                label = annotation["category_id"]
                if rng.random() < 0.2:
                    label = int(rng.choice([*negative[annotation["image_id"]], 1, 500]))
                shift = rng.normal(0, spread, 2) * annotation["bbox"][2:]
                polygons = [
                    (np.reshape(p, (-1, 2)) + shift).ravel().tolist()
                    for p in annotation["segmentation"]
                ]
                rle = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
                results.append(
                    {
                        "image_id": annotation["image_id"],
                        "category_id": label,
                        "score": round(float(rng.random()), 3),
                        "bbox": list(jittered(annotation["bbox"], rng, spread)),
                        "segmentation": {**rle, "counts": rle["counts"].decode()},
                    }
                )
        metrics = lvis_metrics(file, results, iou_type=iou_type)
        used = {annotation["category_id"] for annotation in truth["annotations"]}
        small = {**truth, "categories": [c for c in truth["categories"] if c["id"] in used]}
        expected = undefined_as_nan(official(small, results, iou_type, tmp_path))  # 6 s with all
        assert {name: getattr(metrics, name) for name in expected} == near(expected)
        assert 0.3 < metrics.ap < 0.9 and metrics.ap_common != metrics.ap_frequent
        assert len(metrics.per_class) == 1230
        assert sum(not math.isnan(ap) for ap in metrics.per_class.values()) == 190


class TestErrors:
    @pytest.mark.parametrize("key", ["neg_category_ids", "not_exhaustive_category_ids"])
    def test_ground_truth_that_is_not_federated(self, key: str) -> None:
        truth = scene(thing())
        del truth["images"][0][key]
        with pytest.raises(ValueError, match=rf"ground truth: images\[0\] lacks {key}; it needs"):
            lvis_metrics(truth, [])

    def test_results_and_settings_are_checked_as_for_coco(self) -> None:
        with pytest.raises(ValueError, match=r"^results: category ids 7 are not among the 1"):
            lvis_metrics(scene(thing()), [found(category_id=7)])
        with pytest.raises(ValueError, match=r"^max_detections is 0"):
            lvis_metrics(scene(thing()), [], max_detections=0)
        with pytest.raises(ValueError, match=r"iou_type is 'mask'"):
            lvis_metrics(scene(thing()), [], iou_type="mask")  # type: ignore[arg-type]

    def test_without_frequencies_their_numbers_are_nan(self) -> None:
        truth = scene(thing())
        del truth["categories"][0]["frequency"]
        metrics = lvis_metrics(truth, [found()])
        assert metrics.ap == near(1)
        assert undefined(metrics.ap_rare) and undefined(metrics.ap_frequent)


class TestMetrics:
    def test_log_names(self) -> None:
        log = lvis_metrics(scene(thing(), frequency="c"), [found()]).as_dict("box")
        assert list(log) == [
            "box/AP",
            "box/AP50",
            "box/AP75",
            "box/AP90",
            "box/AP_small",
            "box/AP_medium",
            "box/AP_large",
            "box/AP_rare",
            "box/AP_common",
            "box/AP_frequent",
            "box/AR_max",
            "box/AR_small",
            "box/AR_medium",
            "box/AR_large",
        ]
        assert log["box/AP_common"] == near(1) and math.isnan(log["box/AP_rare"])

    def test_is_frozen(self) -> None:
        metrics: Metrics = lvis_metrics(scene(), [])
        with pytest.raises(FrozenInstanceError):
            metrics.ap = 1.0  # type: ignore[misc]
