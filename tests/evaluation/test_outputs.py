"""The files of an evaluation hold its numbers, whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO as PyCOCO
from pycocotools.cocoeval import COCOeval as PyCOCOeval

from diffinst.datasets.records import Annotation, ImageRecord
from diffinst.datasets.split import Split
from diffinst.evaluation.outputs import write_csv, write_outputs, write_results
from diffinst.evaluation.prediction import Prediction, Request
from diffinst.evaluation.report import Report, score
from diffinst.results.convert import CocoResult

RESULTS = ("results.json", "box_results.json")
ASKED = Request(steps=4, proposals=50, max_detections=100, seed=7, category_ids=(1, 2, 3))


def one_class_found(split: Split) -> Report:
    """All boxes (category 2) as annotated, no disc and no triangle, on the first four images."""
    content: Any = split.as_coco([1, 2, 3, 4])
    results: dict[int, list[CocoResult]] = {1: [], 2: [], 3: [], 4: []}
    for annotation in content["annotations"]:
        if annotation["category_id"] == 2:
            keys = ("image_id", "category_id", "bbox", "segmentation")
            found: Any = {**{key: annotation[key] for key in keys}, "score": 0.9}
            results[found["image_id"]].append(found)
    return score(split, [Prediction(i, 0.5, found) for i, found in results.items()])


def test_class_rows_go_from_best_to_undefined(shapes: Split) -> None:
    found = one_class_found(shapes)
    rows = found.class_rows()
    assert rows[0].name == "box"
    for value in (rows[0].ap, rows[0].ap50, rows[0].box_ap, rows[0].box_ap50):
        assert value == pytest.approx(1)
    assert [(row.name, row.ap, row.ap50) for row in rows[1:]] == [
        ("disc", 0, 0),
        ("triangle", 0, 0),
    ]
    counts = [a.label for r in shapes.records[:4] for a in r.annotations]
    assert [row.objects for row in rows] == [counts.count(1), counts.count(0), counts.count(2)]
    fourth = replace(shapes, classes=("disc", "box", "triangle", "star"), category_ids=(1, 2, 3, 4))
    last = score(fourth, [Prediction(1, 0.1, [])]).class_rows()[-1]
    assert last.name == "star" and last.objects == 0
    assert math.isnan(last.ap) and math.isnan(last.ap50)


def test_every_file_is_written(shapes: Split, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    found = one_class_found(shapes)
    assert write_outputs(found, shapes, ASKED, tmp_path, title="t", worst=2, threshold=0.3) == []
    assert {p.name for p in tmp_path.iterdir()} == {
        "metrics.json",
        "results.json",
        "box_results.json",
        "per_class.csv",
        "precision_recall.png",
        "worst.json",
        "worst",
    }
    settings = {"steps": 4, "proposals": 50, "max_detections": 100, "seed": 7, "noises": 1}
    assert json.loads((tmp_path / "metrics.json").read_text()) == {**settings, **found.as_dict()}
    masks, boxes = (json.loads((tmp_path / n).read_text()) for n in RESULTS)
    assert [{**b, **m} for b, m in zip(boxes, masks, strict=True)] == found.results
    assert all("bbox" not in m for m in masks) and all("segmentation" not in b for b in boxes)
    rows = list(csv.DictReader((tmp_path / "per_class.csv").read_text().splitlines()))
    assert list(rows[0]) == ["class", "AP", "AP50", "box_AP", "box_AP50", "objects"]
    assert [float(row["AP"]) for row in rows] == pytest.approx([1, 0, 0])
    assert rows[0]["class"] == "box" and int(rows[0]["objects"]) == found.objects["box"]
    assert len(list((tmp_path / "worst").iterdir())) == 2


def rle(mask: NDArray[np.uint8]) -> Any:
    encoded: Any = coco_mask.encode(np.asfortranarray(mask))
    return {"size": [*mask.shape], "counts": encoded["counts"].decode()}


def scores_of_other_tools(truth: Path, results: Path, kind: str) -> list[list[float]]:
    """The twelve numbers by each tool's defaults."""
    numbers = []
    for coco, evaluator in ((PyCOCO, PyCOCOeval), (COCO, COCOeval_faster)):
        with contextlib.redirect_stdout(io.StringIO()):
            annotated = coco(str(truth))
            done = evaluator(annotated, annotated.loadRes(str(results)), kind)
            done.evaluate()
            done.accumulate()
            done.summarize()
        numbers.append(np.asarray(done.stats)[:12].tolist())
    return numbers


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
def test_other_tools_report_the_same_numbers_on_these_files(tmp_path: Path) -> None:
    square = np.zeros((100, 100), np.uint8)
    square[:40, :40] = 1  # 1,600 pixels: medium
    line = np.zeros_like(square)
    line[40:, 40:] = np.eye(60)  # 60 pixels, small, in a medium box
    object_ = Annotation(1, (0, 0, 40, 40), 0, rle(square), False, 1600)
    record = ImageRecord(1, tmp_path / "a.png", 100, 100, (object_,))
    split = Split("val", tmp_path / "truth.json", ("a",), (1,), (record,), tmp_path)
    results: list[CocoResult] = [
        {"image_id": 1, "category_id": 1, "bbox": box, "score": value, "segmentation": rle(mask)}
        for box, value, mask in (([0.0, 0, 40, 40], 0.8, square), ([40.0, 40, 60, 60], 0.9, line))
    ]
    report = score(split, [Prediction(1, 0.1, results)], 100)
    assert report.mask.ap == pytest.approx(0.5) and report.mask.ap_medium == pytest.approx(1)
    truth: Any = split.as_coco()
    truth = {key: list(values) for key, values in truth.items()}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    write_outputs(report, split, ASKED, tmp_path, title="t", worst=0, threshold=0.3)
    for name, kind, ours in zip(RESULTS, ("segm", "bbox"), (report.mask, report.box), strict=True):
        for theirs in scores_of_other_tools(tmp_path / "truth.json", tmp_path / name, kind):
            own = [ours.ap, ours.ap50, ours.ap75, ours.ap_small, ours.ap_medium, ours.ap_large]
            assert theirs[:6] == pytest.approx([-1 if math.isnan(v) else v for v in own])


def test_a_report_says_that_others_count_less(shapes: Split, tmp_path: Path) -> None:
    asked = replace(ASKED, max_detections=500)
    found = one_class_found(shapes)
    *_, note = write_outputs(found, shapes, asked, tmp_path, title="t", worst=0, threshold=0.3)
    assert "count 100 unless told otherwise" in note and "--max-detections 100" in note


def test_without_matplotlib_only_the_curves_are_missing(
    shapes: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden: Any = None
    monkeypatch.setitem(sys.modules, "matplotlib.figure", hidden)
    found = one_class_found(shapes)
    (problem,) = write_outputs(found, shapes, ASKED, tmp_path, title="t", worst=0, threshold=0.3)
    assert "precision_recall.png is missing" in problem and "diffinst[plots]" in problem
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {"metrics.json", *RESULTS, "per_class.csv"}


def test_numbers_are_there_before_the_results(shapes: Split, tmp_path: Path) -> None:
    found = one_class_found(shapes)
    found.results.append({**found.results[0], "score": math.nan})  # cannot be written
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_outputs(found, shapes, ASKED, tmp_path, title="t", worst=0, threshold=0.3)
    assert {p.name for p in tmp_path.iterdir()} == {"metrics.json", "per_class.csv"}


def test_nothing_annotated_leaves_results_only(shapes: Split, tmp_path: Path) -> None:
    bare = replace(shapes, records=tuple(replace(r, annotations=()) for r in shapes.records))
    found = score(bare, [Prediction(1, 0.1, one_class_found(shapes).results[:1])], 100)
    assert not found.annotated and math.isnan(found.mask.ap)
    assert write_outputs(found, bare, ASKED, tmp_path, title="t", worst=2, threshold=0.3) == []
    assert {p.name for p in tmp_path.iterdir()} == set(RESULTS)


def test_undefined_cells_are_empty(tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv", ("a", "b,c", "d"), [(1, math.nan, None), (0.5, 'say "x"', 2)])
    assert (tmp_path / "t.csv").read_text() == 'a,"b,c",d\n1,,\n0.5,"say ""x""",2\n'


def test_results_are_one_entry_a_line(tmp_path: Path) -> None:
    entries = [{"image_id": 1, "bbox": [0.5, 1 / 3]}, {"image_id": 2, "name": "\u00e9"}]
    assert write_results(tmp_path / "r.json", iter(entries)) == 2
    text = (tmp_path / "r.json").read_text("ascii")
    assert json.loads(text) == entries
    assert text.splitlines()[1] == '{"image_id":1,"bbox":[0.5,0.3333333333333333]},'


def test_no_results_are_an_empty_list(tmp_path: Path) -> None:
    assert write_results(tmp_path / "r.json", []) == 0
    assert json.loads((tmp_path / "r.json").read_text()) == []


def test_a_failure_half_way_leaves_the_file_before(tmp_path: Path) -> None:
    def broken() -> Iterator[dict[str, object]]:
        yield {"score": 0.5}
        raise RuntimeError("half way")

    path = tmp_path / "r.json"
    write_results(path, [{"score": 1}])
    with pytest.raises(RuntimeError, match="half way"):
        write_results(path, broken())
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_results(path, [{"score": math.nan}])
    assert json.loads(path.read_text()) == [{"score": 1}]
    assert list(tmp_path.iterdir()) == [path]
