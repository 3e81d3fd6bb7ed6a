"""A perfect answer scores 1, and only what was predicted counts."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from diffinst.datasets.load import load_split
from diffinst.datasets.segmentation import rasterize
from diffinst.datasets.split import ImageRecord, Split
from diffinst.datasets.synthetic import make_shapes
from diffinst.evaluation.prediction import Prediction
from diffinst.evaluation.report import finite, score
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


def predicted(record: ImageRecord, instances: Instances, split: Split) -> Prediction:
    results = instances.to_coco(record.id, split.category_ids, boxes="predicted")
    return Prediction(record.id, 0.0, results)


def perfect(split: Split) -> list[Prediction]:
    return [predicted(record, truth(record, split), split) for record in split.records]


def test_the_ground_truth_itself_scores_one(split: Split) -> None:
    report = score(split, perfect(split))
    mask, box = report.mask, report.box
    assert (mask.ap, mask.ap50, box.ap, box.ap75) == pytest.approx((1, 1, 1, 1))


def test_nothing_found_scores_zero_and_only_predicted_images_count(split: Split) -> None:
    first, second, _ = split.records
    found = [predicted(first, truth(first, split), split)]
    assert score(split, found).mask.ap == pytest.approx(1)  # the others were not asked for
    found.append(predicted(second, truth(second, split)[:0], split))
    assert score(split, found).mask.ap < 1
    nothing = predicted(first, Instances.empty((48, 64), split.classes), split)
    assert score(split, [nothing]).mask.ap == 0


@pytest.mark.parametrize("federated", [False, True])
def test_results_and_objects_of_other_images_do_not_count(split: Split, federated: bool) -> None:
    lvis = replace(split, federated=federated)
    first, second, third = perfect(split)
    assert score(lvis, [first, second]).mask.ap == pytest.approx(1)
    assert score(lvis, [replace(second, results=[])]).mask.ap == 0
    with pytest.raises(ValueError, match="results: image ids 3 are not among the 1"):
        score(lvis, [replace(first, results=third.results)])


def test_category_ids_are_those_of_the_file(tmp_path: Path) -> None:
    file = make_shapes(tmp_path, train=0, val=1, objects=(2, 2)) / "annotations/instances_val.json"
    content = json.loads(file.read_text())
    for category in content["categories"]:
        category["id"] *= 10
    for annotation in content["annotations"]:
        annotation["category_id"] *= 10
    file.write_text(json.dumps(content))
    split = load_split(tmp_path, "val")
    report = score(split, perfect(split))
    assert {result["category_id"] for result in report.results} <= {10, 20, 30}
    assert report.mask.ap == pytest.approx(1)


def test_what_reading_left_out_is_no_ground_truth(tmp_path: Path) -> None:
    file = make_shapes(tmp_path, train=0, val=1, objects=(2, 2)) / "annotations/instances_val.json"
    content = json.loads(file.read_text())
    spare = {**content["annotations"][0], "id": 99, "segmentation": []}
    del content["annotations"][0]["area"], content["annotations"][0]["bbox"]  # both optional
    content["annotations"].append(spare)
    file.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="99"):
        split = load_split(tmp_path, "val")
    report = score(split, perfect(split))
    assert report.mask.ap == pytest.approx(1) and report.box.ap == pytest.approx(1)


def test_no_images_give_no_numbers(split: Split) -> None:
    report = score(split, [])
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
    unsure = replace(truth(first, split), scores=torch.full((len(first.annotations),), 0.5))
    for federated, negative in ((True, ()), (True, (0,)), (False, ())):
        other = replace(second, negative=negative)
        lvis = replace(
            split, records=(first, other), federated=federated, frequency=("r", "c", "f")
        )
        report = score(lvis, [predicted(first, unsure, split), predicted(other, claim, split)])
        # k false alarms, then k hits: precision k / 2k at recall 1, and nowhere more
        expected = pytest.approx(1 if federated and not negative else 0.5)
        assert report.mask.per_class["disc"] == expected
        assert report.box.per_class["disc"] == expected
        assert ("mask/AP_rare" in report.as_dict()) == federated


@pytest.mark.parametrize(("federated", "limit"), [(True, 300), (False, 100)])
def test_the_usual_limit_is_the_benchmarks(split: Split, federated: bool, limit: int) -> None:
    lvis = replace(split, federated=federated)
    first = predicted(split.records[0], truth(split.records[0], split), split)
    false = first.results[0].copy()
    false.update({"score": 1.0, "bbox": [0.0, 0.0, 1.0, 1.0]})
    for count, ap in ((limit - 1, True), (limit, False)):
        found = score(lvis, [replace(first, results=[false] * count + first.results[:1])])
        assert (found.box.ap > 0) == ap


def test_order_and_place_of_prediction_do_not_matter(split: Split) -> None:
    one, two, three = perfect(split)
    there, here = score(split, [three, one, two]), score(split, [one, two, three])
    assert (there.mask, there.box) == (here.mask, here.box)
    assert there.mask.ap == pytest.approx(1)


def test_real_lvis_annotations_score_one_against_themselves(shared_dir: Path) -> None:
    split = load_split(shared_dir / "datasets" / "lvis_fixture", "val_mini")
    report = score(split, perfect(split))
    numbers = report.as_dict()
    assert report.mask.ap == pytest.approx(1)
    assert numbers["mask/AP_frequent"] == pytest.approx(1)
    assert report.box.ap > 0.99  # boxes of the file are not always those of its polygons
    assert numbers["mask/AP_rare"] is None  # none on these nine images


def test_a_report_knows_what_there_was_to_find(split: Split) -> None:
    report = score(split, perfect(split))
    labels = [a.label for record in split.records for a in record.annotations]
    assert report.objects == {name: labels.count(k) for k, name in enumerate(split.classes)}
    assert report.annotated and report.image_ids == (1, 2, 3)
    crowd = tuple(replace(a, crowd=True) for a in split.records[0].annotations)
    only = replace(split, records=(replace(split.records[0], annotations=crowd),))
    report = score(only, perfect(split)[:1])
    assert not report.annotated and set(report.objects.values()) == {0}


def test_label_maps_are_measured_where_there_is_one_class(split: Split) -> None:
    one = split.merged()
    found = [
        predicted(record, replace(truth(record, one), labels=torch.zeros_like(labels)), one)
        for record in one.records
        for labels in [truth(record, one).labels]
    ]
    report = score(one, found, threshold=0.5)
    assert report.label_map is not None
    assert (report.label_map.msa, report.label_map.pq) == pytest.approx((1, 1))
    assert report.as_dict()["label_map/AP@0.5"] == pytest.approx(1)
    assert report.as_dict()["label_map/threshold"] == 0.5
    unsure = score(one, found, threshold=0.95).label_map
    assert unsure is not None and unsure.f1_50 == 0
    assert score(one, found).label_map is None
    several = score(split, perfect(split), threshold=0.5)
    assert several.label_map is None
    assert not any(name.startswith("label_map") for name in several.as_dict())
    assert score(one, [], threshold=0.5).label_map is None  # nothing to find
