"""The worst images are the worst, and the drawing shows what was wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffinst.datasets.records import ImageRecord
from diffinst.datasets.segmentation import compressed
from diffinst.datasets.split import Split
from diffinst.evaluation.prediction import Prediction
from diffinst.evaluation.report import score
from diffinst.evaluation.worst import (
    FALSE,
    IGNORED,
    MISSED,
    RIGHT,
    draw,
    image_scores,
    write_worst,
)
from diffinst.results.instances import CocoResult


def truth(record: ImageRecord, split: Split, score: float = 0.9) -> list[CocoResult]:
    """The annotations as if they had been predicted."""
    results: list[CocoResult] = []
    for a in record.annotations:
        rle = compressed(a.segmentation, record.height, record.width)
        counts = rle["counts"]
        text = counts.decode() if isinstance(counts, bytes) else str(counts)
        x0, y0, x1, y1 = a.box
        results.append(
            {
                "image_id": record.id,
                "category_id": split.category_ids[a.label],
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "score": score,
                "segmentation": {"size": [record.height, record.width], "counts": text},
            }
        )
    return results


@pytest.fixture
def results(shapes: Split) -> list[CocoResult]:
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


def near_colour(image: Image.Image, colour: tuple[int, int, int], left: bool) -> int:
    """Pixels of about this colour (outlines are drawn opaque) in one half of the sheet."""
    pixels = np.asarray(image.convert("RGB")).astype(int)
    half = pixels[:, : pixels.shape[1] // 2] if left else pixels[:, pixels.shape[1] // 2 :]
    return int((abs(half - np.array(colour)).max(-1) < 25).sum())


def test_colours_tell_right_from_wrong(shapes: Split, tmp_path: Path) -> None:
    record = shapes.records[0]
    grey = tmp_path / "grey.png"
    Image.new("RGB", (record.width, record.height), (20, 20, 20)).save(grey)
    record = replace(record, path=grey)
    perfect = draw(record, truth(record, shapes), shapes)
    for left in (True, False):
        assert near_colour(perfect, RIGHT, left) > 100
    assert near_colour(perfect, FALSE, True) == near_colour(perfect, MISSED, False) == 0

    wrong = truth(record, shapes)
    for result in wrong:
        result["category_id"] = result["category_id"] % 3 + 1
    useless = draw(record, wrong, shapes)
    assert near_colour(useless, FALSE, True) > 100 and near_colour(useless, MISSED, False) > 100
    assert near_colour(useless, RIGHT, True) == near_colour(useless, RIGHT, False) == 0

    crowds = replace(record, annotations=tuple(replace(a, crowd=True) for a in record.annotations))
    ignored = draw(crowds, truth(record, shapes), shapes)
    for left in (True, False):
        assert near_colour(ignored, IGNORED, left) > 100 and near_colour(ignored, RIGHT, left) == 0


def test_nothing_predicted_and_nothing_there_can_be_drawn(shapes: Split) -> None:
    empty = replace(shapes.records[0], annotations=())
    assert draw(empty, [], shapes).size == draw(shapes.records[0], [], shapes).size
