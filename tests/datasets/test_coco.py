"""COCO folders are read as they are written; every defect is named with file, id and value."""

import copy
import json
import os
import re
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as mask_utils

from diffinst.datasets.coco import read
from diffinst.datasets.load import load_split
from diffinst.datasets.segmentation import DatasetError, rasterize

Content = dict[str, Any]

# 4 rows, 6 columns; the 2x2 square whose first pixel is row 1, column 2. Down the columns: 9
# background pixels (two columns and one pixel), then 2 set, 2 not, 2 set, and 9 to the end of 24.
SQUARE_POLYGON = [2.0, 1.0, 4.0, 1.0, 4.0, 3.0, 2.0, 3.0]
SQUARE_RUNS = [9, 2, 2, 2, 9]
SQUARE_MASK = np.array([[0] * 6, [0, 0, 1, 1, 0, 0], [0, 0, 1, 1, 0, 0], [0] * 6], bool)


def compressed(mask: np.ndarray) -> dict[str, Any]:
    rle = mask_utils.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": rle["counts"].decode()}


def annotation(number: int, **changes: Any) -> Content:
    base = {
        "id": number,
        "image_id": 42,
        "category_id": 7,
        "bbox": [2, 1, 2, 2],
        "area": 4,
        "iscrowd": 0,
        "segmentation": [SQUARE_POLYGON],
    }
    return {**base, **changes}


def dataset(root: Path, content: Content | None, files: tuple[str, ...] = ("cat.jpg",)) -> Path:
    """A folder with the split "train"; only the names of images count here."""
    for file in files:
        (root / "train" / file).parent.mkdir(parents=True, exist_ok=True)
        (root / "train" / file).touch()
    (root / "annotations").mkdir(exist_ok=True)
    if content is not None:
        annotations = root / "annotations" / "instances_train.json"
        annotations.write_text(json.dumps(content), encoding="utf-8")
    return root


CONTENT: Content = {
    "images": [{"id": 42, "file_name": "cat.jpg", "height": 4, "width": 6}],
    "annotations": [annotation(1)],
    "categories": [{"id": 7, "name": "cat"}],
}


def with_annotations(*annotations: Content) -> Content:
    return {**CONTENT, "annotations": list(annotations)}


# --- what is read


def test_split_is_read(tmp_path: Path) -> None:
    split = load_split(dataset(tmp_path, CONTENT), "train")
    assert split.name == "train"
    assert split.annotation_file == tmp_path / "annotations" / "instances_train.json"
    assert split.image_dir == tmp_path / "train"
    assert split.classes == ("cat",)
    assert split.category_ids == (7,)
    (record,) = split.records
    assert (record.id, record.height, record.width) == (42, 4, 6)
    assert record.path == tmp_path / "train" / "cat.jpg"
    (one,) = record.annotations
    assert one.id == 1
    assert one.box == (2.0, 1.0, 4.0, 3.0)  # xywh 2, 1, 2, 2
    assert one.label == 0
    assert one.segmentation == [SQUARE_POLYGON]
    assert one.crowd is False
    assert one.area == 4.0


def test_labels_ascend_with_category_ids_whatever_their_order_and_gaps(tmp_path: Path) -> None:
    content = with_annotations(
        annotation(1, category_id=90), annotation(2, category_id=0), annotation(3, category_id=5)
    )
    content["categories"] = [{"id": i, "name": f"class {i}"} for i in (90, 0, 5)]
    split = load_split(dataset(tmp_path, content), "train")
    assert split.category_ids == (0, 5, 90)
    assert split.classes == ("class 0", "class 5", "class 90")
    assert [one.label for one in split.records[0].annotations] == [2, 0, 1]


def test_order_of_the_file_is_kept_and_images_without_objects_stay(tmp_path: Path) -> None:
    content = with_annotations(
        annotation(30), annotation(5, image_id=3), annotation(10), annotation(20)
    )
    content["images"] = [
        {"id": number, "file_name": f"{number}.jpg", "height": 4, "width": 6}
        for number in (42, 7, 3)
    ]
    split = load_split(dataset(tmp_path, content, ("42.jpg", "7.jpg", "3.jpg")), "train")
    assert [record.id for record in split.records] == [42, 7, 3]
    ids = [[one.id for one in record.annotations] for record in split.records]
    assert ids == [[30, 10, 20], [], [5]]


def test_split_without_images_is_empty(tmp_path: Path) -> None:
    content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    assert load_split(dataset(tmp_path, content), "train").records == ()


def test_images_may_lie_in_subfolders_and_linked_folders(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "dog.jpg").touch()
    root = dataset(tmp_path, None, ("sub/deep/cat.jpg",))
    (root / "train" / "link").symlink_to(elsewhere)
    names = ("sub/deep/cat.jpg", "link/dog.jpg")
    images = [{"id": i, "file_name": name, "height": 1, "width": 1} for i, name in enumerate(names)]
    dataset(root, {**CONTENT, "images": images, "annotations": []})
    paths = [record.path for record in load_split(root, "train").records]
    assert paths == [root / "train" / name for name in names]


def test_crowds_are_kept(tmp_path: Path) -> None:
    rle = {"size": [4, 6], "counts": SQUARE_RUNS}
    root = dataset(tmp_path, with_annotations(annotation(1, iscrowd=1, segmentation=rle)))
    (one,) = load_split(root, "train").records[0].annotations
    assert one.crowd is True
    assert one.segmentation == rle


@pytest.mark.parametrize(
    ("bbox", "box"),
    [
        ([-3, -2, 5, 4], (0.0, 0.0, 2.0, 2.0)),
        ([4, 2, 100, 100], (4.0, 2.0, 6.0, 4.0)),
        ([-1, -1, 100, 100], (0.0, 0.0, 6.0, 4.0)),
        ([0.5, 0.25, 1.5, 1.5], (0.5, 0.25, 2.0, 1.75)),
    ],
)
def test_boxes_are_clipped_to_the_image(
    tmp_path: Path, bbox: list[float], box: tuple[float, ...]
) -> None:
    root = dataset(tmp_path, with_annotations(annotation(1, bbox=bbox)))
    assert load_split(root, "train").records[0].annotations[0].box == box


@pytest.mark.parametrize(
    "segmentation",
    [
        [SQUARE_POLYGON],
        {"size": [4, 6], "counts": SQUARE_RUNS},
        compressed(SQUARE_MASK),
    ],
    ids=["polygon", "RLE", "compressed RLE"],
)
def test_box_and_area_come_from_the_mask_where_the_file_has_none(
    tmp_path: Path, segmentation: object
) -> None:
    bare = annotation(1, segmentation=segmentation)
    del bare["bbox"], bare["area"], bare["iscrowd"]
    (one,) = load_split(dataset(tmp_path, with_annotations(bare)), "train").records[0].annotations
    assert one.box == (2.0, 1.0, 4.0, 3.0)
    assert one.area == 4.0
    assert one.crowd is False


def test_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    root = dataset(tmp_path, CONTENT)
    file = root / "annotations" / "instances_train.json"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(load_split(root, "train").records) == 1


@pytest.mark.parametrize(
    ("name", "split", "images", "objects", "classes"),
    [
        ("nuclei", "train", 532, 23235, 1),
        ("nuclei", "val", 66, 2969, 1),
        ("coco_mini", "train", 302, 2625, 80),
        ("coco_mini", "val", 150, 1160, 80),
    ],
)
def test_real_datasets(
    shared_dir: Path, name: str, split: str, images: int, objects: int, classes: int
) -> None:
    data = load_split(shared_dir / "datasets" / name, split)
    assert len(data.records) == images
    assert sum(len(record.annotations) for record in data.records) == objects
    assert len(data.classes) == classes


def test_masks_of_a_real_dataset_fill_their_boxes_and_areas(shared_dir: Path) -> None:
    data = load_split(shared_dir / "datasets" / "nuclei", "val")
    for record in data.records[:5]:
        for one in record.annotations:
            mask = rasterize(one.segmentation, record.height, record.width)
            rows, columns = np.nonzero(mask)
            tight = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert one.box == tight
            assert one.area == mask.sum()


# --- what is left out


DEGENERATE = {
    "an empty segmentation": [
        annotation(2, segmentation=[]),
        annotation(3, segmentation={"size": [4, 6], "counts": [24]}),
        annotation(4, segmentation=compressed(np.zeros((4, 6)))),
        annotation(5, segmentation={"size": [4, 6], "counts": ""}),
        annotation(6, segmentation={"size": [4, 6], "counts": []}),
    ],
    "polygons of fewer than three points": [
        annotation(2, segmentation=[[1, 1, 2, 2]]),
        annotation(3, segmentation=[[], [1, 1]]),
    ],
    "whose box has no area inside the image": [
        annotation(2, bbox=[2, 1, 0, 2]),
        annotation(3, bbox=[2, 1, 2, -1]),
        annotation(4, bbox=[6, 1, 2, 2]),
        annotation(5, bbox=[-3, 1, 2, 2]),
    ],
}


@pytest.mark.parametrize(("what", "annotations"), DEGENERATE.items(), ids=list(DEGENERATE))
def test_degenerate_objects_are_left_out_with_a_warning(
    tmp_path: Path, what: str, annotations: list[Content]
) -> None:
    root = dataset(tmp_path, with_annotations(*annotations, annotation(9)))
    ids = ", ".join(str(one["id"]) for one in annotations)
    message = rf"instances_train\.json: left out {len(annotations)} .*{what} \(id {ids}\)$"
    with pytest.warns(UserWarning, match=message):
        (record,) = load_split(root, "train").records
    assert [one.id for one in record.annotations] == [9]


def test_all_that_is_left_out_is_told_in_one_warning(tmp_path: Path) -> None:
    degenerate = [annotation(i, segmentation=[]) for i in range(1, 9)]
    root = dataset(tmp_path, with_annotations(*degenerate, annotation(20, bbox=[0, 0, 0, 0])))
    with pytest.warns(UserWarning, match="left out") as caught:
        load_split(root, "train")
    assert len(caught) == 1
    assert str(caught[0].message).endswith(
        "left out 8 annotations with an empty segmentation (id 1, 2, 3, 4, 5 and 3 more); "
        "1 annotations whose box has no area inside the image (id 20)"
    )
    assert caught[0].filename == __file__


def test_short_polygons_beside_others_are_left_out(tmp_path: Path) -> None:
    segmentation = [[1, 1, 2, 2], SQUARE_POLYGON]
    root = dataset(tmp_path, with_annotations(annotation(2, segmentation=segmentation)))
    with pytest.warns(
        UserWarning, match=r"left out 1 .*single polygons of fewer than .* \(id 2\)$"
    ):
        (record,) = load_split(root, "train").records
    assert record.annotations[0].segmentation == [SQUARE_POLYGON]


def test_sound_files_warn_of_nothing(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_split(dataset(tmp_path, CONTENT), "train")


# --- what is refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"broken JSON \(EOF .*line 1 column 0\); copy or export it again"),
        ('{"images": [', "broken JSON .*line 1 column 12.*; copy or export it again"),
        ("[]", "should be an object; COCO files are an object with lists 'images', 'annotations"),
        ('{"images": [], "annotations": []}', "top-level 'categories': Field required; COCO files"),
        ('{"images": 5}', "top-level 'images': Input should be a valid array; COCO files"),
    ],
)
def test_file_that_is_no_coco(tmp_path: Path, text: str, message: str) -> None:
    root = dataset(tmp_path, None)
    (root / "annotations" / "instances_train.json").write_text(text, encoding="utf-8")
    with pytest.raises(DatasetError, match=rf"instances_train\.json: .*{message}"):
        load_split(root, "train")


def test_missing_images_are_counted(tmp_path: Path) -> None:
    names = ("cat.jpg", "dog.jpg", "cow.jpg")
    images = [
        {"id": 42 + i, "file_name": name, "height": 4, "width": 6} for i, name in enumerate(names)
    ]
    root = dataset(tmp_path, {**CONTENT, "images": images}, ("dog.jpg",))
    message = (
        rf"instances_train\.json: image 42 \(cat\.jpg\) \(and 1 more\) is missing on disk; "
        rf"put it into {re.escape(str(root))}/train, or remove it from 'images' with its"
    )
    with pytest.raises(DatasetError, match=message):
        load_split(root, "train")


def annotated(**changes: Any) -> Callable[[Content], None]:
    return lambda content: content["annotations"][0].update(changes)


def imaged(**changes: Any) -> Callable[[Content], None]:
    return lambda content: content["images"][0].update(changes)


def without(table: str, key: str) -> Callable[[Content], None]:
    return lambda content: content[table][0].pop(key)


def doubled(table: str) -> Callable[[Content], None]:
    return lambda content: content[table].append(content[table][0])


def emptied(table: str) -> Callable[[Content], None]:
    return lambda content: content[table].clear()


def rle(size: list[int], counts: object) -> Callable[[Content], None]:
    return annotated(segmentation={"size": size, "counts": counts})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (emptied("categories"), "'categories' is empty; list at least one class"),
        (
            annotated(image_id=43),
            r"annotation 1: image_id 43 is not among the ids in 'images' \(42\); add that image or",
        ),
        (
            annotated(category_id=8),
            r"annotation 1: category_id 8 is not among the ids in 'categories' \(7\); add that",
        ),
        (doubled("images"), "image id 42 stands more than once in 'images'; .*remove or renumber"),
        (doubled("annotations"), "annotation id 1 stands more than once in 'annotations'; ids"),
        (doubled("categories"), "category id 7 stands more than once in 'categories'; ids have"),
        (imaged(file_name="no.jpg"), r"image 42 \(no\.jpg\) is missing on disk; put it into"),
        (imaged(file_name=""), r"image 42 \(\) is missing on disk"),
        (imaged(file_name=None), "image 42: file_name: .*valid string, given None; correct this"),
        (imaged(height=0), "image 42: height: .*greater than 0, given 0; correct this entry"),
        (imaged(width=6.5), r"image 42: width: .*valid integer, given 6\.5"),
        (imaged(id="42"), "image 42: id: .*valid integer, given '42'"),
        (without("images", "id"), r"images\[0\]: id: Field required; correct this entry"),
        (without("categories", "name"), "category 7: name: Field required"),
        (
            without("annotations", "segmentation"),
            "its annotations are boxes: not one of 1 has a ma",
        ),
        (without("annotations", "image_id"), "annotation 1: image_id: Field required"),
        (without("annotations", "category_id"), "annotation 1: category_id: Field required"),
        (lambda content: content["annotations"].append(5), r"annotations\[1\]: .*object, given 5"),
        (annotated(segmentation=None), "its annotations are boxes: not one of 1 has a mask"),
        (annotated(segmentation=[1, 2, 3]), r"segmentation\.polygons\.0: .*array, given 1"),
        (annotated(segmentation=[[1, 2, "3", 4]]), r"polygons\.0\.2: .*number, given '3'"),
        (annotated(segmentation=[[0, 0, float("nan")]]), "should be a finite number, given nan"),
        (
            annotated(segmentation=[[0, 0, 3, 0, 3, 2, 0]]),
            "annotation 1: a polygon has 7 numbers; ",
        ),
        (annotated(bbox=[1, 2, 3]), r"annotation 1: bbox\.3: Field required"),
        (annotated(bbox=[1, 2, float("inf"), 3]), r"bbox\.2: .*finite number, given inf"),
        (annotated(area=-1), "annotation 1: area: .*greater than or equal to 0, given -1"),
        (annotated(iscrowd=2), "annotation 1: iscrowd: Input should be 0 or 1, given 2"),
        (rle([4, 6], 5), r"annotation 1: segmentation\.RLE\.counts.*given 5"),
        (
            rle([6, 4], SQUARE_RUNS),
            r"annotation 1: its RLE is of size \[6, 4\] \(height, width\), the image of \[4, 6\]",
        ),
        (rle([4, 6], [9, 2]), "counts cover 11 pixels, the image has 4 x 6 = 24; encode the"),
        (rle([4, 6], [9, -2, 17]), "annotation 1: its RLE counts hold -2, allowed are 0 to 24"),
        (rle([4, 6], "9"), "annotation 1: its RLE counts cover 9 pixels"),
        (rle([4, 6], "not RLE"), "its RLE counts 'not RLE' are no compressed RLE; encode the mask"),
        (rle([4, 6], "9P"), "its RLE counts '9P' are no compressed RLE"),
    ],
)
def test_defect_is_named(tmp_path: Path, damage: Callable[[Content], None], message: str) -> None:
    content = copy.deepcopy(CONTENT)
    damage(content)
    with pytest.raises(DatasetError, match=rf"instances_train\.json: .*{message}"):
        load_split(dataset(tmp_path, content), "train")


def test_a_missing_mask_among_others_is_named(tmp_path: Path) -> None:
    content = with_annotations(annotation(1), annotation(2, segmentation=None))
    with pytest.raises(DatasetError, match=r"annotation 2: segmentation.*valid array, given None"):
        load_split(dataset(tmp_path, content), "train")


# --- ids, classes, names


def test_a_defect_in_the_second_entry_of_one_id_or_file_is_named(tmp_path: Path) -> None:
    content = copy.deepcopy(CONTENT)
    content["images"].append({**content["images"][0], "file_name": "dog.jpg"})
    root = dataset(tmp_path, content, ("cat.jpg", "dog.jpg"))
    with pytest.raises(DatasetError, match=r"'images'; 42 is cat\.jpg and dog\.jpg; ids have to"):
        load_split(root, "train")
    content["images"][1] = {**content["images"][0], "id": 43}
    dataset(tmp_path, content)
    with pytest.raises(DatasetError, match=r"images 42, 43 are the same file, cat\.jpg; put their"):
        load_split(root, "train")


def textual(*keys: str) -> Content:
    """The content with these ids as text."""
    content = copy.deepcopy(CONTENT)
    for table, entries in content.items():
        for entry in entries:
            for key in ("id", "image_id", "category_id"):
                if f"{table}.{key}" in keys:
                    entry[key] = str(entry[key])
    return content


IMAGE_IDS = ("images.id", "annotations.image_id")
CATEGORY_IDS = ("categories.id", "annotations.category_id")


@pytest.mark.parametrize(
    "keys", [IMAGE_IDS, CATEGORY_IDS, ("annotations.id",), (*IMAGE_IDS, *CATEGORY_IDS)]
)
def test_ids_may_be_text_throughout(tmp_path: Path, keys: tuple[str, ...]) -> None:
    split = load_split(dataset(tmp_path, textual(*keys)), "train")
    assert split.records == load_split(dataset(tmp_path, CONTENT), "train").records
    assert split.category_ids == (7,)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("images.id", "image 42: id: .*valid integer, given '42'"),
        ("annotations.image_id", "annotation 1: image_id: .*valid integer, given '42'"),
        ("categories.id", "category 7: id: .*valid integer, given '7'"),
        ("annotations.category_id", "annotation 1: category_id: .*valid integer, given '7'"),
    ],
)
def test_ids_that_are_text_in_one_place_only(tmp_path: Path, key: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        load_split(dataset(tmp_path, textual(key)), "train")


@pytest.mark.parametrize("given", ["cat", "042", " 42", "4.2e1", "", "-42", "４２"])
def test_text_that_is_no_number_is_no_id(tmp_path: Path, given: str) -> None:
    content = copy.deepcopy(CONTENT)
    content["images"][0]["id"] = content["annotations"][0]["image_id"] = given
    with pytest.raises(DatasetError, match=rf"id: .*valid integer.*, given '{given}'"):
        load_split(dataset(tmp_path, content), "train")


def test_ids_of_64_bits(tmp_path: Path) -> None:
    large = 2**63 - 1
    content = copy.deepcopy(CONTENT)
    content["images"][0]["id"] = content["annotations"][0]["image_id"] = large
    assert load_split(dataset(tmp_path, content), "train").records[0].id == large
    content["images"][0]["id"] = content["annotations"][0]["image_id"] = large + 1
    with pytest.raises(
        DatasetError, match=r"id: Input should be less than 9223372036854775808, gi"
    ):
        load_split(dataset(tmp_path, content), "train")


def roboflow(**root: Any) -> Content:
    categories = [
        {"id": 0, "name": "cells", "supercategory": "none", **root},
        {"id": 7, "name": "cat", "supercategory": "cells"},
    ]
    return {**CONTENT, "categories": categories}


def test_roboflows_root_category_is_left_out(tmp_path: Path) -> None:
    split = load_split(dataset(tmp_path, roboflow()), "train")
    assert (split.classes, split.category_ids) == (("cat",), (7,))


@pytest.mark.parametrize(
    "content",
    [
        roboflow(id=3),
        roboflow(name="dog"),
        roboflow(supercategory="cells"),
        {**roboflow(), "annotations": [annotation(1), annotation(2, category_id=0)]},
    ],
    ids=["another id", "nobody's parent", "a class of its own", "in use"],
)
def test_other_categories_without_objects_stay(tmp_path: Path, content: Content) -> None:
    assert len(load_split(dataset(tmp_path, content), "train").classes) == 2


def test_objects_may_stand_before_their_images_and_classes(tmp_path: Path) -> None:
    backwards = {key: CONTENT[key] for key in ("annotations", "categories", "images")}
    split = load_split(dataset(tmp_path, {"info": {"images": []}, **backwards}), "train")
    assert split.records == load_split(dataset(tmp_path, CONTENT), "train").records


def test_names_in_any_script(tmp_path: Path) -> None:
    content = copy.deepcopy(CONTENT)
    content["images"][0]["file_name"] = "Kätzchen 猫.jpg"
    content["categories"][0]["name"] = "猫"
    split = load_split(dataset(tmp_path, content, ("Kätzchen 猫.jpg",)), "train")
    assert split.classes == ("猫",)
    assert split.records[0].path.name == "Kätzchen 猫.jpg"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (imaged(file_name="\ud800.jpg"), r"image 42: Invalid JSON: .*hex escape"),
        (imaged(height=2**31), "image 42: height: .*less than 2147483648"),
        (
            imaged(height=2**31 - 1),
            "image 42: height is 2147483647, width is 6: 12884901882 pixels; allowed are 500000000",
        ),
        (rle([4], SQUARE_RUNS), r"annotation 1: its RLE is of size \[4\]; allowed is \[height, wi"),
        (rle([0, 6], []), r"its RLE is of size \[0, 6\]; allowed is"),
        (rle([10**6, 10**6], "9"), r"its RLE is of size \[1000000, 1000000\]; allowed .* pixels"),
        (annotated(segmentation={"size": [4, 6]}), r"segmentation\.RLE\.counts: Field required"),
        (annotated(area=10**400), "annotation 1: area: "),
        (annotated(bbox=[0, 0, 10**400, 4]), r"annotation 1: bbox\.2: .*finite number"),
        (annotated(segmentation=[[0, 0, 10**400, 0, 1, 1]]), r"polygons\.0\.2: .*finite number"),
        (annotated(id=10**400), "annotation 10{19}: id: .*less than"),
        (annotated(id="1" * 5000), "annotation 1{20}: id: .*valid integer, given '111"),
        (
            rle([4, 6], [2**63, 24 - 2**63]),
            "its RLE counts hold 9223372036854775808, more than any",
        ),
        (
            rle([4, 6], [2**62] * 3 + [2**62 + 24]),
            "counts hold 4611686018427387904, allowed are 0 to",
        ),
        (rle([4, 6], [10**400]), r"its RLE counts hold 10{8,}\.\.\.0+, more than any image"),
        (rle([10**400], SQUARE_RUNS), r"its RLE is of size \[10+\.\.\.0+\]; allowed is"),
        (annotated(segmentation=[[0, 0, True, 1, 2, 3]]), r"polygons\.0\.2: .*number, given True"),
    ],
)
def test_rarer_defect_is_named(
    tmp_path: Path, damage: Callable[[Content], None], message: str
) -> None:
    content = copy.deepcopy(CONTENT)
    damage(content)
    with pytest.raises(DatasetError, match=rf"instances_train\.json: .*{message}"):
        load_split(dataset(tmp_path, content), "train")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(tmp_path: Path) -> None:
    root = dataset(tmp_path, CONTENT)
    (root / "annotations" / "instances_train.json").chmod(0)
    with pytest.raises(DatasetError, match=r"instances_train\.json: cannot be read \(Permission"):
        load_split(root, "train")


# --- memory


def test_reading_takes_little_more_than_what_is_kept(tmp_path: Path) -> None:
    """A file of 5 MB: 2,500 objects of 100 points, kept as 16 bytes a point."""
    content = {
        "images": CONTENT["images"],
        "categories": CONTENT["categories"],
        "annotations": [
            annotation(j, segmentation=[[j * 1e-7 + i + 0.123456789 for i in range(200)]])
            for j in range(2500)
        ],
    }
    file = tmp_path / "large.json"
    file.write_text(json.dumps(content))
    del content
    assert file.stat().st_size > 5_000_000

    def peak_of(read: Callable[[], object]) -> int:
        tracemalloc.start()
        kept = read()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        del kept
        return peak

    size = sum(array.nbytes for array in read(file).packed.arrays().values())
    assert 2500 * 100 * 16 < size < 2500 * 100 * 16 * 1.2
    ours = peak_of(lambda: read(file))
    assert ours < size + 6_000_000  # a growing column, and the text of two chunks
    assert ours < peak_of(lambda: json.loads(file.read_bytes())) / 2
