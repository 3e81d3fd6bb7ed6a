"""One reader, two tempers: what training refuses is noted here, and nothing else as breaking."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from diffinst.datasets import coco
from diffinst.datasets.doctor.findings import Notebook
from diffinst.datasets.doctor.tables import read_tables
from diffinst.datasets.layouts import SplitFiles
from diffinst.datasets.problems import DatasetError

SQUARE = [2.0, 1.0, 4.0, 1.0, 4.0, 3.0, 2.0, 3.0]
LISTS: dict[str, Any] = {"neg_category_ids": [8], "not_exhaustive_category_ids": []}
CONTENT: dict[str, Any] = {
    "images": [
        {"id": 42, "file_name": "a.jpg", "height": 4, "width": 6, **LISTS},
        {"id": 43, "file_name": "b.jpg", "height": 4, "width": 6, **LISTS},
    ],
    "annotations": [
        {
            "id": 1,
            "image_id": 42,
            "category_id": 7,
            "bbox": [2, 1, 2, 2],
            "area": 4,
            "iscrowd": 0,
            "segmentation": [SQUARE],
        }
    ],
    "categories": [
        {"id": 7, "name": "cat", "supercategory": "animal", "frequency": "f"},
        {"id": 8, "name": "dog", "supercategory": "animal", "frequency": "r"},
    ],
}
ABSENT = object()
ODD: list[Any] = [
    ABSENT,
    None,
    "",
    " ",
    "7",
    "x",
    "\ud800",
    0,
    7,
    8,
    -1,
    43,
    7.0,
    6.5,
    True,
    [],
    {},
]
ODD += [[], {}, [7], [9], ["7"], [1, 2, 3], [1, 2, 3, 4], {"a": 1}, 2**31, 2**63, 10**400]
ODD += [float("nan"), float("inf"), [1, 2, 3, float("nan")]]
FIELDS = [
    (table, field)
    for table, entries in CONTENT.items()
    for field in (*entries[0], "coco_url", "other")
    if field != "segmentation"  # of which the doctor tells more, once images are opened
]


@pytest.mark.parametrize(("table", "field"), FIELDS)
def test_tempers_agree_on_odd_values(tmp_path: Path, table: str, field: str) -> None:
    file = tmp_path / "instances_train.json"
    for value in ODD:
        content = copy.deepcopy(CONTENT)
        content[table][0][field] = value
        if value is ABSENT:
            del content[table][0][field]
        file.write_text(json.dumps(content), encoding="utf-8")
        notes = Notebook().of("train")
        tables = read_tables(SplitFiles("train", "coco", file, tmp_path), notes)
        codes = {one.code for one in notes.findings() if one.severity == "breaks"}
        if codes:
            with pytest.raises(DatasetError) as caught:
                coco.read(file)
            assert caught.value.code in codes, value
        else:
            coco.read(file)
        assert tables is not None
        assert len(tables.classes) == len(tables.class_entries)


@pytest.mark.parametrize("table", list(CONTENT))
@pytest.mark.parametrize("odd", [None, 7, "x", [], {}, {"id": 42}, True])
def test_tempers_agree_on_odd_entries(tmp_path: Path, table: str, odd: object) -> None:
    file = tmp_path / "instances_train.json"
    file.write_text(json.dumps({**CONTENT, table: [*CONTENT[table], odd]}), encoding="utf-8")
    notes = Notebook().of("train")
    tables = read_tables(SplitFiles("train", "coco", file, tmp_path), notes)
    assert notes.breaks()
    assert tables is not None and len(tables.images) == 2 and len(tables.classes) >= 2
    with pytest.raises(DatasetError) as caught:
        coco.read(file)
    assert notes.has(caught.value.code)
