"""Does a perfect answer score 1, and is a model never scored on other classes than its own?"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from diffinst.config import ConfigError
from diffinst.datasets.load import load_split
from diffinst.datasets.segmentation import rasterize
from diffinst.datasets.split import ImageRecord, Split
from diffinst.datasets.synthetic import make_shapes
from diffinst.evaluation.average_precision import CocoMetrics
from diffinst.evaluation.evaluator import Evaluator, evaluate, finite
from diffinst.inference.predictor import DiffusionInst
from diffinst.results.crops import CroppedMasks
from diffinst.results.instances import Instances


@pytest.fixture
def split(tmp_path: Path) -> Split:
    return load_split(make_shapes(tmp_path, train=0, val=3, size=(48, 64), objects=(2, 4)), "val")


def truth(record: ImageRecord, split: Split) -> Instances:
    """The annotations of an image as if they had been predicted."""
    masks = [rasterize(a.segmentation, record.height, record.width) for a in record.annotations]
    return Instances(
        boxes=torch.tensor([a.box for a in record.annotations]),
        scores=torch.full((len(masks),), 0.9),
        labels=torch.tensor([a.label for a in record.annotations]),
        mask_crops=CroppedMasks.from_dense(torch.stack([torch.from_numpy(m) for m in masks])),
        image_size=(record.height, record.width),
        class_names=split.classes,
    )


def test_the_ground_truth_itself_scores_one(split: Split) -> None:
    evaluator = Evaluator(split)
    for record in split.records:
        evaluator.add(record, truth(record, split))
    mask, box = evaluator.compute()
    assert isinstance(mask, CocoMetrics) and isinstance(box, CocoMetrics)
    assert (mask.ap, mask.ap50, box.ap, box.ap75) == pytest.approx((1, 1, 1, 1))


def test_nothing_found_scores_zero_and_only_added_images_count(split: Split) -> None:
    first, second, _ = split.records
    evaluator = Evaluator(split)
    evaluator.add(first, truth(first, split))
    assert evaluator.compute()[0].ap == pytest.approx(1)  # the others were not asked for
    evaluator.add(second, truth(second, split)[:0])
    assert evaluator.compute()[0].ap < 1
    nothing = Evaluator(split)
    nothing.add(first, Instances.empty((48, 64), split.classes))
    assert nothing.compute()[0].ap == 0


def test_category_ids_are_those_of_the_file(tmp_path: Path) -> None:
    file = make_shapes(tmp_path, train=0, val=1, objects=(2, 2)) / "annotations/instances_val.json"
    content = json.loads(file.read_text())
    for category in content["categories"]:
        category["id"] *= 10
    for annotation in content["annotations"]:
        annotation["category_id"] *= 10
    file.write_text(json.dumps(content))
    split = load_split(tmp_path, "val")
    evaluator = Evaluator(split)
    evaluator.add(split.records[0], truth(split.records[0], split))
    assert {result["category_id"] for result in evaluator.results} <= {10, 20, 30}
    assert evaluator.compute()[0].ap == pytest.approx(1)


def test_other_classes_are_refused(split: Split) -> None:
    for names in (("cell",), ("disc", "box", "cat"), ("disc", "box", "disc")):
        with pytest.raises(ValueError, match=r"instances_val\.json has 3 classes \(disc, box, tri"):
            Evaluator(split, class_names=names)
    with pytest.raises(ValueError, match=r"the model 1 \(cell\)"):
        Evaluator(split, class_names=("cell",))


def test_labels_mean_names_not_positions(split: Split) -> None:
    # ids 1, 2, 3 are disc, box, triangle; this model counts from the other end
    assert split.classes == ("disc", "box", "triangle")
    assert Evaluator(split, class_names=("triangle", "box", "disc")).category_ids == (3, 2, 1)


def test_what_reading_left_out_is_no_ground_truth(tmp_path: Path) -> None:
    file = make_shapes(tmp_path, train=0, val=1, objects=(2, 2)) / "annotations/instances_val.json"
    content = json.loads(file.read_text())
    spare = {**content["annotations"][0], "id": 99, "segmentation": []}
    del content["annotations"][0]["area"], content["annotations"][0]["bbox"]  # both optional
    content["annotations"].append(spare)
    file.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="99"):
        split = load_split(tmp_path, "val")
    evaluator = Evaluator(split)
    evaluator.add(split.records[0], truth(split.records[0], split))
    mask, box = evaluator.compute()
    assert mask.ap == pytest.approx(1) and box.ap == pytest.approx(1)


def test_a_model_without_names_needs_the_number_of_classes(split: Split) -> None:
    model = DiffusionInst.from_preset("tiny")
    two = replace(split, classes=("disc", "box"), category_ids=(1, 2))
    with pytest.raises(ValueError, match="has 2 classes, the model 3 without names"):
        evaluate(model, two)


def test_evaluate_reports_what_json_can_hold(split: Split) -> None:
    model, calls = DiffusionInst.from_preset("tiny"), []
    report = evaluate(
        model,
        split,
        steps=1,
        proposals=8,
        max_detections=5,
        records=split.records[:2],
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(1, 2), (2, 2)] and report.images == 2
    counts = [sum(r["image_id"] == record.id for r in report.results) for record in split.records]
    assert max(counts) <= 5 and counts[2] == 0
    values = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert values["mask/AR10"] is None  # at most five detections: not defined
    assert 0 <= values["mask/AP"] <= 1


def test_zero_detections_are_refused_as_in_predict(split: Split) -> None:
    model = DiffusionInst.from_preset("tiny")
    with pytest.raises(ConfigError, match=r"postprocess\.max_detections.*0"):
        evaluate(model, split, max_detections=0)


def test_no_images_give_no_numbers(split: Split) -> None:
    report = evaluate(DiffusionInst.from_preset("tiny"), split, records=())
    assert report.as_dict()["mask/AP"] is None
    assert (report.images, report.results) == (0, [])


def test_finite_replaces_nan_only() -> None:
    assert finite({"a": 0.5, "b": math.nan, "c": 0.0}) == {"a": 0.5, "b": None, "c": 0.0}


def test_federated_splits_are_scored_by_lviss_rules(split: Split) -> None:
    # Class 0 is annotated on image 1 and claimed on image 2, where nobody looked for it.
    first, second, _ = split.records
    assert any(a.label == 0 for a in first.annotations)
    second = replace(second, annotations=tuple(a for a in second.annotations if a.label != 0))
    claim = truth(first, split)
    claim = claim[claim.labels == 0]
    for federated, negative in ((True, ()), (True, (0,)), (False, ())):
        other = replace(second, negative=negative)
        records = (first, other)
        lvis = replace(split, records=records, federated=federated, frequency=("r", "c", "f"))
        evaluator = Evaluator(lvis)
        evaluator.add(
            first, replace(truth(first, split), scores=torch.full((len(first.annotations),), 0.5))
        )
        evaluator.add(other, claim)
        mask, box = evaluator.compute()
        # k false alarms, then k hits: precision k / 2k at recall 1, and nowhere more
        expected = pytest.approx(1 if federated and not negative else 0.5)
        assert mask.per_class["disc"] == expected and box.per_class["disc"] == expected
        assert ("mask/AP_rare" in mask.as_dict("mask")) == federated
        assert evaluator.max_detections == (300 if federated else 100)


def test_results_gathered_elsewhere_count_as_added(split: Split) -> None:
    evaluator, gathered = Evaluator(split), Evaluator(split)
    for record in split.records:
        evaluator.add(record, truth(record, split))
    gathered.results, gathered.image_ids = list(evaluator.results), [3, 1, 2]
    assert gathered.compute() == evaluator.compute()
    assert gathered.compute()[0].ap == pytest.approx(1)


def test_real_lvis_annotations_score_one_against_themselves(shared_dir: Path) -> None:
    split = load_split(shared_dir / "datasets" / "lvis_fixture", "val_mini")
    evaluator = Evaluator(split)
    for record in split.records:
        evaluator.add(record, truth(record, split))
    mask, box = evaluator.compute()
    numbers = mask.as_dict("mask")
    assert mask.ap == pytest.approx(1) and numbers["mask/AP_frequent"] == pytest.approx(1)
    assert box.ap > 0.99  # boxes of the file are not always those of its polygons
    assert math.isnan(numbers["mask/AP_rare"])  # none on these nine images


def test_a_report_knows_what_there_was_to_find(split: Split) -> None:
    report = evaluate(DiffusionInst.from_preset("tiny"), split, steps=1, proposals=4)
    labels = [a.label for record in split.records for a in record.annotations]
    assert report.objects == {name: labels.count(k) for k, name in enumerate(split.classes)}
    assert report.annotated and report.image_ids == (1, 2, 3)
    crowd = tuple(replace(a, crowd=True) for a in split.records[0].annotations)
    only = replace(split, records=(replace(split.records[0], annotations=crowd),))
    report = evaluate(DiffusionInst.from_preset("tiny"), only, steps=1, proposals=4)
    assert not report.annotated and set(report.objects.values()) == {0}


def test_an_image_that_cannot_be_read_is_noted(split: Split, tmp_path: Path) -> None:
    gone = replace(split.records[0], path=tmp_path / "gone.png")
    report = evaluate(DiffusionInst.from_preset("tiny"), split, records=(gone, split.records[1]))
    assert report.images == 1 and report.image_ids == (2,)
    assert len(report.failed) == 1 and "gone.png" in report.failed[0]
