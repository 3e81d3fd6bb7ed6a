"""Do the parts come out as one file that other tools read, masks and all?"""

from __future__ import annotations

import csv
import io
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from diffinst.scale.merge import merge_run, tight_box, writer_of
from diffinst.scale.messages import Instance, Row
from diffinst.scale.rows import TornPart, name_of


def test_coco_is_read_by_its_own_library(finished: Path) -> None:
    file, failed = merge_run(finished, "coco")
    assert (file, failed) == (finished / "coco.json", 1)
    with redirect_stdout(io.StringIO()):
        coco = COCO(str(file))
    images = {image["id"]: image["file_name"] for image in coco.loadImgs(coco.getImgIds())}
    assert images == {1: "a.png", 2: "b.png", 4: "d.png", 5: "e.png"}  # 3 could not be read
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == ["cat", "dog"]
    annotations = coco.loadAnns(coco.getAnnIds())
    assert [sum(a["image_id"] == i for a in annotations) for i in range(1, 6)] == [1, 2, 0, 3, 4]
    expected = np.zeros((4, 6), np.uint8)
    expected[1:3, 2:5] = 1
    for annotation in annotations:
        assert np.array_equal(coco.annToMask(annotation), expected)
        assert annotation["bbox"] == [2, 1, 3, 2] and annotation["area"] == 6


def test_csv_has_a_line_per_instance(finished: Path, tmp_path: Path) -> None:
    file, _ = merge_run(finished, "csv", tmp_path / "x" / "out.csv")
    with open(file, newline="") as opened:
        lines = list(csv.DictReader(opened))
    assert len(lines) == 10
    assert lines[0] == {
        "image_id": "1", "path": "a.png", "label": "1", "class_name": "dog", "score": "0.500000",
        "x0": "2.0", "y0": "1.0", "x1": "5.0", "y1": "3.0", "area": "6",
    }  # fmt: skip


def test_an_empty_mask_has_its_predicted_box() -> None:
    nothing = Instance(0, 0.5, (1.0, 1.0, 2.5, 2.0), "h0", {"area": 0.0})  # 24 = all background
    assert tight_box(Row("a", "a", height=4, width=6), nothing) == (1.0, 1.0, 2.5, 2.0)


def test_an_unfinished_or_torn_run_is_refused(finished: Path) -> None:
    file = finished / name_of(2)
    content = file.read_bytes()
    file.write_bytes(content[:-4])
    with pytest.raises(TornPart, match="part-000002"):
        merge_run(finished, "coco")
    file.unlink()
    with pytest.raises(ValueError, match=r"1 of 3 parts are missing \(parts/part-000002"):
        merge_run(finished, "csv")
    assert not (finished / "coco.json").exists() and not list(finished.glob(".*"))


def test_unknown_formats_are_refused() -> None:
    with pytest.raises(ValueError, match="--to pdf: there is no such format; allowed are coco and"):
        writer_of("pdf")
