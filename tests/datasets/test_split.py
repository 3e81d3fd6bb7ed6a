"""A split says the same whether its records are packed or a tuple: merged, as COCO, counted."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from diffinst.datasets.load import load_split
from diffinst.datasets.split import Split, class_counts, labels_by_image
from diffinst.datasets.synthetic import make_shapes

SQUARE = [2.0, 1.0, 4.0, 1.0, 4.0, 3.0, 2.0, 3.0]

# Images 1, 2, 3; classes 10 (label 0) and 20 (label 1), 30 (label 2) on none. Image 1 holds
# two of class 10 and one of 20, image 3 one of class 10.
OBJECTS = [(1, 1, 10), (2, 1, 20), (3, 1, 10), (4, 3, 10)]


@pytest.fixture
def packed(tmp_path: Path) -> Split:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "train").mkdir()
    images: list[dict[str, Any]] = []
    for i in (1, 2, 3):
        (tmp_path / "train" / f"{i}.jpg").touch()
        image = {"id": i, "file_name": f"{i}.jpg", "height": 4, "width": 6}
        lists = {"neg_category_ids": [30], "not_exhaustive_category_ids": [10][: i - 1]}
        images.append({**image, **lists})
    content = {
        "images": images,
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": category,
                "segmentation": [SQUARE],
                "bbox": [2, 1, 2, 2],
                "area": 4,
            }
            for number, image, category in OBJECTS
        ],
        "categories": [
            {"id": i, "name": f"class {i}", "frequency": often}
            for i, often in ((10, "f"), (20, "c"), (30, "r"))
        ],
    }
    (tmp_path / "annotations" / "instances_train.json").write_text(json.dumps(content))
    return load_split(tmp_path, "train")


@pytest.fixture(params=["packed", "tuple"])
def split(packed: Split, request: pytest.FixtureRequest) -> Split:
    return packed if request.param == "packed" else replace(packed, records=tuple(packed.records))


def test_federated_fields_are_read(split: Split) -> None:
    assert split.federated
    assert split.frequency == ("f", "c", "r")
    assert [r.negative for r in split.records] == [(2,), (2,), (2,)]
    assert [r.not_exhaustive for r in split.records] == [(), (0,), (0,)]


def test_merged(split: Split) -> None:
    merged = split.merged("thing")
    assert (merged.classes, merged.category_ids) == (("thing",), (1,))
    assert (merged.federated, merged.frequency) == (False, ())
    assert [[a.label for a in r.annotations] for r in merged.records] == [[0, 0, 0], [], [0]]
    assert all(not r.negative and not r.not_exhaustive for r in merged.records)
    assert [a.label for a in split.records[0].annotations] == [0, 1, 0]  # as it was


def test_as_coco(split: Split) -> None:
    content = split.as_coco()
    objects: Any = content["annotations"]
    assert len(objects) == 4
    assert [(a["id"], a["image_id"], a["category_id"]) for a in objects] == OBJECTS
    assert [objects[i] for i in range(4)] == list(objects) == objects[:]
    assert objects[-1] == {
        "id": 4,
        "image_id": 3,
        "category_id": 10,
        "bbox": [2.0, 1.0, 2.0, 2.0],
        "area": 4.0,
        "segmentation": [SQUARE],
        "iscrowd": 0,
    }
    with pytest.raises(IndexError):
        objects[4]
    images: Any = content["images"]
    assert len(images) == 3
    assert images[1] == {
        "id": 2,
        "height": 4,
        "width": 6,
        "neg_category_ids": [30],
        "not_exhaustive_category_ids": [10],
    }
    assert content["categories"] == [
        {"id": 10, "name": "class 10", "frequency": "f"},
        {"id": 20, "name": "class 20", "frequency": "c"},
        {"id": 30, "name": "class 30", "frequency": "r"},
    ]


def test_as_coco_of_some_images(split: Split) -> None:
    content: Any = split.as_coco([3, 2])
    assert [image["id"] for image in content["images"]] == [2, 3]
    assert [a["id"] for a in content["annotations"]] == [4]
    nothing: Any = split.as_coco([])
    assert (len(nothing["images"]), len(nothing["annotations"])) == (0, 0)
    assert not nothing["annotations"]
    assert len(nothing["categories"]) == 3


def test_as_coco_reads_back(tmp_path: Path) -> None:
    root = make_shapes(tmp_path, train=3, val=0)
    split = load_split(root, "train")
    content: Any = split.as_coco()
    assert "neg_category_ids" not in content["images"][0]
    assert set(content["categories"][0]) == {"id", "name"}
    for image, record in zip(images := list(content["images"]), split.records, strict=True):
        image["file_name"] = record.path.name
    again = {**content, "images": images, "annotations": list(content["annotations"])}
    (root / "annotations" / "instances_train.json").write_text(json.dumps(again))
    assert load_split(root, "train").records == split.records


def test_classes_are_counted_by_image(split: Split) -> None:
    images, labels = labels_by_image(split)
    assert images.tolist() == [0, 0, 2]
    assert labels.tolist() == [0, 1, 0]
    assert class_counts(split).tolist() == [2, 1, 0]
    assert class_counts(split.merged()).tolist() == [2]
    assert class_counts(replace(split, records=())).tolist() == [0, 0, 0]
