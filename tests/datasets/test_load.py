"""One call loads every layout; what it cannot use it names."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from diffinst.datasets.load import check_trainable, load_split
from diffinst.datasets.segmentation import DatasetError
from diffinst.datasets.split import Split
from diffinst.datasets.synthetic import make_shapes

SQUARE = [2.0, 1.0, 4.0, 1.0, 4.0, 3.0, 2.0, 3.0]
CONTENT: dict[str, Any] = {
    "images": [{"id": 42, "file_name": "cat.jpg", "height": 4, "width": 6}],
    "annotations": [{"id": 1, "image_id": 42, "category_id": 7, "segmentation": [SQUARE]}],
    "categories": [{"id": 7, "name": "cat"}],
}


def write(root: Path, file: str, content: dict[str, Any], *images: str) -> Path:
    for name in (file, *images):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / file).write_text(json.dumps(content))
    return root


def check(split: Split, image: Path) -> None:
    (record,) = split.records
    assert record.path == image
    assert record.path.is_file()
    (one,) = record.annotations
    assert (one.box, one.area, one.label) == ((2.0, 1.0, 4.0, 3.0), 4.0, 0)
    assert split.classes == ("cat",)


@pytest.mark.parametrize(
    ("file", "image", "name"),
    [
        ("annotations/instances_train.json", "train/cat.jpg", "train"),
        ("annotations/instances_train2017.json", "images/train2017/cat.jpg", "train"),
        ("train/_annotations.coco.json", "train/cat.jpg", "train"),
        ("valid/_annotations.coco.json", "valid/cat.jpg", "val"),
        ("train.json", "images/some/where/cat.jpg", "train"),
        ("train/annotations.json", "train/images/cat.jpg", "train"),
        ("annotations/train.json", "images/cat.jpg", "train"),
    ],
)
def test_layouts(tmp_path: Path, file: str, image: str, name: str) -> None:
    split = load_split(str(write(tmp_path, file, CONTENT, image)), name)
    assert (split.name, split.annotation_file) == (name, tmp_path / file)
    check(split, tmp_path / image)


def test_images_of_lvis_without_annotations_are_federated(tmp_path: Path) -> None:
    """Its image_info files have no lists of absent classes: their name tells."""
    content = {key: CONTENT[key] for key in ("images", "categories")}
    file = "annotations/lvis_v1_image_info_test_dev.json"
    split = load_split(write(tmp_path, file, content, "test2017/cat.jpg"), "test-dev")
    assert (split.federated, split.frequency) == (True, ())
    assert [record.negative for record in split.records] == [()]
    file = "annotations/image_info_test.json"
    assert not load_split(write(tmp_path / "b", file, content, "test/cat.jpg"), "test").federated
    categories = [{**CONTENT["categories"][0], "frequency": "c"}]
    content["categories"] = categories  # of LVIS alone
    split = load_split(write(tmp_path / "c", file, content, "test/cat.jpg"), "test")
    assert (split.federated, split.frequency) == (True, ("c",))


def test_annotated_lvis_needs_its_lists(tmp_path: Path) -> None:
    message = r"lvis_v1_val\.json: no image has 'neg_category_ids', .*; fetch the file again"
    with pytest.raises(DatasetError, match=message):
        load_split(write(tmp_path, "lvis_v1_val.json", CONTENT, "val2017/cat.jpg"), "val")


def test_lvis_v1_names_images_by_url_only(tmp_path: Path) -> None:
    image = {
        "id": 42,
        "height": 4,
        "width": 6,
        "coco_url": "http://images.cocodataset.org/val2017/000000000042.jpg",
        "neg_category_ids": [9],
        "not_exhaustive_category_ids": [7],
    }
    categories = [
        {"id": 9, "name": "dog", "frequency": "r"},
        {"id": 7, "name": "cat", "frequency": "f"},
    ]
    content = {**CONTENT, "images": [image], "categories": categories}
    place = "coco/val2017/000000000042.jpg"
    write(tmp_path, "lvis/lvis_v1_val.json", content, place, "coco/train2017/000000000042.jpg")
    split = load_split(tmp_path / "lvis", "val")
    (record,) = split.records
    assert record.path.resolve() == (tmp_path / place).resolve()
    assert (record.negative, record.not_exhaustive) == ((1,), (0,))
    assert (split.federated, split.frequency) == (True, ("f", "r"))


@pytest.mark.parametrize("key", ["neg_category_ids", "not_exhaustive_category_ids"])
def test_lvis_lists_refer_to_categories(tmp_path: Path, key: str) -> None:
    lists = {"neg_category_ids": [], "not_exhaustive_category_ids": [], key: [7, 8]}
    content = {**CONTENT, "images": [{**CONTENT["images"][0], **lists}]}
    message = rf"image 42: {key} holds 8, which is not among the ids in 'categories' \(7\); add"
    with pytest.raises(DatasetError, match=message):
        load_split(write(tmp_path, "lvis_v1_val.json", content, "val2017/cat.jpg"), "val")


def test_yolo(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    Image.new("RGB", (6, 4)).save(tmp_path / "images" / "cat.png")
    corners = [v / (4 if i % 2 else 6) for i, v in enumerate(SQUARE)]
    (tmp_path / "labels" / "cat.txt").write_text(f"0 {' '.join(map(str, corners))}\n")
    (tmp_path / "data.yaml").write_text("names: {0: cat}\ntrain: images\n")
    split = load_split(tmp_path, "train")
    check(split, tmp_path / "images" / "cat.png")
    assert split.annotation_file == tmp_path / "data.yaml"
    assert split.image_dir == tmp_path / "images"


def test_classes_may_be_taken_as_one(tmp_path: Path) -> None:
    root = make_shapes(tmp_path, train=2, val=0, objects=(2, 3))
    split = load_split(root, "train", single_class=True)
    assert (split.classes, split.category_ids) == (("object",), (1,))
    assert {a.label for r in split.records for a in r.annotations} == {0}


# --- images without annotations


@pytest.mark.parametrize("annotations", [None, []])
def test_test_images_can_be_loaded_but_not_trained_on(
    tmp_path: Path, annotations: list[object] | None
) -> None:
    content = {**CONTENT, "annotations": annotations}
    if annotations is None:
        del content["annotations"]
    file = "annotations/image_info_test-dev2017.json"
    split = load_split(write(tmp_path, file, content, "test2017/cat.jpg"), "test-dev")
    assert [(r.id, r.annotations) for r in split.records] == [(42, ())]
    message = r"test-dev2017\.json: none of its 1 images has an annotated object, .*; train on an"
    with pytest.raises(DatasetError, match=message):
        check_trainable(split)


def test_what_can_be_trained_on(tmp_path: Path) -> None:
    split = load_split(make_shapes(tmp_path, train=2, val=0, objects=(1, 1)), "train")
    check_trainable(split)
    check_trainable(split.merged())
    with pytest.raises(DatasetError, match=r"instances_train\.json: no images to train on"):
        check_trainable(replace(split, records=()))


def test_other_files_need_annotations(tmp_path: Path) -> None:
    content = {key: value for key, value in CONTENT.items() if key != "annotations"}
    with pytest.raises(DatasetError, match="top-level 'annotations': Field required"):
        load_split(write(tmp_path, "train.json", content, "images/cat.jpg"), "train")


def test_images_need_not_be_there_if_none_is_needed(tmp_path: Path) -> None:
    write(tmp_path, "annotations/instances_train.json", CONTENT)
    (tmp_path / "train").mkdir()
    with pytest.raises(DatasetError, match=r"image 42 \(cat\.jpg\) is missing on disk"):
        load_split(tmp_path, "train")
    (record,) = load_split(tmp_path, "train", images=False).records
    assert record.path == tmp_path / "train" / "cat.jpg"


# --- real data


@pytest.mark.parametrize(
    ("name", "images", "objects", "classes"),
    [("val_100", 100, 977, 1230), ("val_mini", 9, 55, 1230)],
)
def test_lvis_fixture(shared_dir: Path, name: str, images: int, objects: int, classes: int) -> None:
    root = shared_dir / "datasets" / "lvis_fixture"
    split = load_split(root, name, images=name == "val_mini")
    assert (len(split.records), len(split.classes)) == (images, classes)
    assert sum(len(record.annotations) for record in split.records) == objects
    assert split.federated
    assert {often: split.frequency.count(often) for often in "rcf"} == {
        "r": 454,
        "c": 461,
        "f": 315,
    }
    file = json.loads(split.annotation_file.read_text())
    by_id = {image["id"]: image for image in file["images"]}
    for record in split.records:
        ids = [split.category_ids[label] for label in record.negative]
        assert ids == by_id[record.id]["neg_category_ids"]
    if name == "val_mini":
        assert all(record.path.is_file() for record in split.records)


def test_coco_evaluation_fixture(shared_dir: Path, tmp_path: Path) -> None:
    """COCO's own demo: annotations before images, ids of val2014, 9 crowds."""
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val2014").mkdir()
    fixture = shared_dir / "datasets" / "coco_eval_fixture" / "instances_val2014_100.json"
    shutil.copy(fixture, tmp_path / "annotations" / "instances_val2014.json")
    split = load_split(tmp_path, "val", images=False)
    assert len(split.records) == 100
    objects = [a for record in split.records for a in record.annotations]
    assert len(objects) == 839
    assert sum(a.crowd for a in objects) == 9
    assert split.category_ids[-1] == 90
