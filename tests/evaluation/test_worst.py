"""The worst images are the worst, and the drawing shows what was wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from diffinst.datasets.split import Split
from diffinst.evaluation.prediction import Prediction
from diffinst.evaluation.report import score
from diffinst.evaluation.worst import (
    draw,
    image_scores,
    write_worst,
)
from diffinst.results.convert import CocoResult

AsFound = Callable[..., list[CocoResult]]


@pytest.fixture
def results(shapes: Split, truth: AsFound) -> list[CocoResult]:
    """Image 1 perfect, 2 without its first object, 3 with wrong names, 4 unsure, 5, 6 none."""
    first, second, third, fourth, *_ = shapes.records
    wrong = truth(third, shapes)
    for result in wrong:
        result["category_id"] = result["category_id"] % 3 + 1
    unsure = truth(fourth, shapes, score=0.2)
    return [*truth(first, shapes), *truth(second, shapes)[1:], *wrong, *unsure]


def test_the_worst_come_first(shapes: Split, results: list[CocoResult]) -> None:
    scores = image_scores(shapes, results, [1, 2, 3, 4], threshold=0.3)
    assert [s.image_id for s in scores] == [3, 4, 2, 1]  # 3: misses and false alarms; 4: misses
    counts = {r.id: len(r.annotations) for r in shapes.records}
    by_id = {s.image_id: s for s in scores}
    n = counts[2]
    assert by_id[1].f1 == 1 and by_id[2].f1 == pytest.approx(2 * (n - 1) / (2 * (n - 1) + 1))
    assert (by_id[1].f1_50, by_id[2].f1_50) == (1, by_id[2].f1)  # right at all thresholds or none
    assert (by_id[2].objects, by_id[2].found, by_id[2].missed) == (n, n - 1, 1)
    assert by_id[2].false_positives == 0
    assert by_id[4].found == 0 and by_id[4].missed == counts[4]
    assert by_id[1].file == "000000.png"
    lower = image_scores(shapes, results, [4], threshold=0.2)
    assert lower[0].f1 == 1


def test_only_the_images_asked_for_are_scored(shapes: Split) -> None:
    assert [s.image_id for s in image_scores(shapes, [], [5], threshold=0.3)] == [5]
    assert image_scores(shapes, [], [], threshold=0.3) == []


def test_files_of_the_worst(shapes: Split, results: list[CocoResult], tmp_path: Path) -> None:
    by_image = [[r for r in results if r["image_id"] == i] for i in (1, 2, 3, 4)]
    report = score(shapes, [Prediction(i, 0.0, found) for i, found in enumerate(by_image, 1)])
    write_worst(report, shapes, tmp_path, count=3, threshold=0.3)
    names = sorted(p.name for p in (tmp_path / "worst").iterdir())
    assert names == ["01_000002.png", "02_000003.png", "03_000001.png"]
    write_worst(report, shapes, tmp_path, count=1, threshold=0.3)
    assert [p.name for p in (tmp_path / "worst").iterdir()] == ["01_000002.png"]
    content = json.loads((tmp_path / "worst.json").read_text())
    assert content["score_threshold"] == 0.3
    (entry,) = content["images"]
    assert entry["image"] == "worst/01_000002.png" and entry["f1"] == 0
    assert entry["false_positives"] == entry["objects"] == len(shapes.records[2].annotations)


def test_an_image_gone_by_now_is_listed(shapes: Split, tmp_path: Path) -> None:
    gone = replace(shapes.records[0], path=tmp_path / "gone.png")
    split = replace(shapes, records=(gone,))
    write_worst(
        score(split, [Prediction(gone.id, 0.0, [])]), split, tmp_path, count=8, threshold=0.3
    )
    (entry,) = json.loads((tmp_path / "worst.json").read_text())["images"]
    assert entry["image"].startswith("not drawn: ") and "gone.png" in entry["image"]
    assert entry["file"] == "gone.png"


def test_tiles_of_small_images_are_large_enough_for_their_captions(shapes: Split) -> None:
    sheet = draw(shapes.records[0], [], shapes)
    assert sheet.width > 2 * 480 and sheet.width < 2 * 480 + 100
