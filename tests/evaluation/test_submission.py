"""Would a server take the files?"""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from diffinst.datasets.split import Split
from diffinst.evaluation.submission import write_submission
from diffinst.results.convert import CocoResult


def results(image_id: int, count: int) -> list[CocoResult]:
    return [
        {
            "image_id": image_id,
            "category_id": 3,
            "bbox": [0.0, 0.0, 64.0, 48.0],
            "score": (i + 1) / (3 * count),
            "segmentation": {"size": [48, 64], "counts": "0P]1"},
        }
        for i in range(count)
    ]


def named(split: Split, file: str) -> Split:
    return replace(split, annotation_file=Path(file))


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("annotations/image_info_test-dev2017.json", "test-dev2017"),
        ("annotations/instances_val.json", "val"),
        ("lvis_v1_val.json", "val"),
        ("data.yaml", "val"),
    ],
)
def test_a_folder_gets_the_names_of_cocos_server(
    shapes: Split, file: str, name: str, tmp_path: Path
) -> None:
    made = write_submission(results(1, 2), named(shapes, file), tmp_path / "sub")
    assert made.results == tmp_path / "sub" / f"detections_{name}_diffinst_results.json"
    assert made.archive == made.results.with_suffix(".zip")
    with zipfile.ZipFile(made.archive) as packed:
        assert packed.namelist() == [made.results.name]
        assert packed.read(made.results.name) == made.results.read_bytes()


@pytest.mark.parametrize("name", ["mine.json", "mine.zip"])
def test_a_file_may_be_named(shapes: Split, name: str, tmp_path: Path) -> None:
    made = write_submission(results(1, 2), shapes, tmp_path / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.json", "mine.zip"]
    assert (made.written, made.dropped) == (2, 0)


def test_entries_hold_what_the_server_reads_and_no_more(shapes: Split, tmp_path: Path) -> None:
    made = write_submission(results(7, 3), shapes, tmp_path)
    content = json.loads(made.results.read_text())
    assert content[0] == {
        "image_id": 7,
        "category_id": 3,
        "segmentation": {"size": [48, 64], "counts": "0P]1"},
        "score": 0.33333,
    }
    assert [entry["score"] for entry in content] == [0.33333, 0.22222, 0.11111]


@pytest.mark.parametrize(("federated", "limit"), [(False, 100), (True, 300)])
def test_the_best_of_each_image_up_to_the_benchmarks_limit(
    shapes: Split, federated: bool, limit: int, tmp_path: Path
) -> None:
    split = replace(shapes, federated=federated)
    made = write_submission([*results(1, 400), *results(2, 5)], split, tmp_path)
    content = json.loads(made.results.read_text())
    scores = [entry["score"] for entry in content if entry["image_id"] == 1]
    assert len(scores) == limit and scores == sorted(scores, reverse=True)
    assert scores[0] == 0.33333 and scores[-1] == pytest.approx((401 - limit) / 1200, abs=1e-5)
    assert len(content) == made.written == limit + 5 and made.dropped == 400 - limit


def test_no_results_are_an_empty_list(shapes: Split, tmp_path: Path) -> None:
    made = write_submission([], shapes, tmp_path / "none.zip")
    assert json.loads(made.results.read_text()) == [] and made.written == 0
