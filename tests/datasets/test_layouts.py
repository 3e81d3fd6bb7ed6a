"""Splits are found wherever datasets of the usual kinds keep them; what is missing is named."""

import os
import re
from pathlib import Path

import pytest

from diffinst.datasets.layouts import SplitFiles, find_split, find_splits
from diffinst.datasets.segmentation import DatasetError


def tree(root: Path, *paths: str) -> Path:
    """Empty files, and folders where a path ends in "/"."""
    for path in paths:
        if path.endswith("/"):
            (root / path).mkdir(parents=True, exist_ok=True)
        else:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).touch()
    return root


def found(root: Path) -> dict[str, tuple[str, str, str]]:
    """Format, annotations and images by split, relative to the root."""
    return {
        name: (
            files.format,
            files.annotations.relative_to(root).as_posix(),
            Path(os.path.relpath(files.images, root)).as_posix(),
        )
        for name, files in find_splits(root).items()
    }


LAYOUTS = {
    "ours": (
        ["annotations/instances_train.json", "annotations/instances_val.json", "train/", "val/"],
        {
            "train": ("coco", "annotations/instances_train.json", "train"),
            "val": ("coco", "annotations/instances_val.json", "val"),
        },
    ),
    "COCO's own": (
        [
            "annotations/instances_train2017.json",
            "annotations/instances_val2017.json",
            "annotations/image_info_test-dev2017.json",
            "annotations/person_keypoints_train2017.json",
            "annotations/captions_val2017.json",
            "annotations/panoptic_val2017.json",
            "train2017/",
            "images/val2017/",
            "test2017/",
        ],
        {
            "train": ("coco", "annotations/instances_train2017.json", "train2017"),
            "val": ("coco", "annotations/instances_val2017.json", "images/val2017"),
            "test-dev": ("coco", "annotations/image_info_test-dev2017.json", "test2017"),
        },
    ),
    "two years": (
        [
            "annotations/instances_train2014.json",
            "annotations/instances_train2017.json",
            "train2014/",
            "train2017/",
        ],
        {
            "train2014": ("coco", "annotations/instances_train2014.json", "train2014"),
            "train2017": ("coco", "annotations/instances_train2017.json", "train2017"),
        },
    ),
    "LVIS": (
        ["lvis_v1_train.json", "lvis_v1_minival.json", "train2017/", "val2017/"],
        {
            "train": ("lvis", "lvis_v1_train.json", "."),
            "minival": ("lvis", "lvis_v1_minival.json", "."),
        },
    ),
    "LVIS with images/": (
        ["annotations/lvis_v1_train.json", "annotations/lvis_v0.5_val.json", "images/val2017/"],
        {
            "train": ("lvis", "annotations/lvis_v1_train.json", "images"),
            "val": ("lvis", "annotations/lvis_v0.5_val.json", "images"),
        },
    ),
    "LVIS and COCO": (
        [
            "annotations/lvis_v1_val.json",
            "annotations/instances_val2017.json",
            "val2017/",
            "train2017/",
        ],
        {
            "val2017": ("coco", "annotations/instances_val2017.json", "val2017"),
            "lvis_v1_val": ("lvis", "annotations/lvis_v1_val.json", "."),
        },
    ),
    "Roboflow": (
        [
            "train/_annotations.coco.json",
            "valid/_annotations.coco.json",
            "test/_annotations.coco.json",
            "train/a.jpg",
            "README.dataset.txt",
        ],
        {
            "train": ("coco", "train/_annotations.coco.json", "train"),
            "val": ("coco", "valid/_annotations.coco.json", "valid"),
            "test": ("coco", "test/_annotations.coco.json", "test"),
        },
    ),
    "a json in the split's folder": (
        ["train/annotations.json", "train/images/a.jpg", "val/some.json", "val/a.jpg"],
        {
            "train": ("coco", "train/annotations.json", "train/images"),
            "val": ("coco", "val/some.json", "val"),
        },
    ),
    "a json beside images/": (
        ["train.json", "validation.json", "notes.json", "images/"],
        {
            "train": ("coco", "train.json", "images"),
            "val": ("coco", "validation.json", "images"),
        },
    ),
    "a json in annotations/": (
        ["annotations/train.json", "annotations/val_coco.json", "images/a/1.jpg"],
        {
            "train": ("coco", "annotations/train.json", "images"),
            "val": ("coco", "annotations/val_coco.json", "images"),
        },
    ),
    "images in the root": (
        ["train.json", "a.JPG"],
        {"train": ("coco", "train.json", ".")},
    ),
    "CVAT": (
        ["annotations/instances_default.json", "images/default/"],
        {"train": ("coco", "annotations/instances_default.json", "images/default")},
    ),
    "CVAT for images": (
        ["annotations.xml", "images/a.png"],
        {"train": ("cvat", "annotations.xml", "images")},
    ),
    "CVAT for images, by split": (
        ["train/annotations.xml", "train/images/", "val.xml", "images/val/", "notes.xml"],
        {
            "train": ("cvat", "train/annotations.xml", "train/images"),
            "val": ("cvat", "val.xml", "images/val"),
        },
    ),
    "VOC's xml are not CVAT's": (["annotations/a.xml", "annotations/b.xml", "images/a.png"], {}),
    "Label Studio": (
        ["result.json", "images/"],
        {"train": ("coco", "result.json", "images")},
    ),
    "no val": (
        ["annotations/instances_train.json", "train/"],
        {"train": ("coco", "annotations/instances_train.json", "train")},
    ),
    "another name": (
        ["annotations/instances_fold3.json", "fold3/"],
        {"fold3": ("coco", "annotations/instances_fold3.json", "fold3")},
    ),
    "nothing": (["notes.json", "._train.json", "train/a.jpg", "images/"], {}),
}


@pytest.mark.parametrize(("paths", "expected"), LAYOUTS.values(), ids=list(LAYOUTS))
def test_layouts(
    tmp_path: Path, paths: list[str], expected: dict[str, tuple[str, str, str]]
) -> None:
    assert found(tree(tmp_path, *paths)) == expected


def test_labelme(tmp_path: Path) -> None:
    tree(tmp_path, "train/a.jpg", "train/b.jpg", "train/c.json", "val/d.jpg", "val/d.json")
    for name in ("train/a", "train/b", "val/d"):
        (tmp_path / f"{name}.json").write_text('{"shapes": [], "imagePath": "a.jpg"}')
    assert found(tmp_path) == {name: ("labelme", name, name) for name in ("train", "val")}
    assert found(tmp_path / "val") == {"train": ("labelme", ".", ".")}


def test_lvis_finds_the_images_of_coco_next_door(tmp_path: Path) -> None:
    tree(tmp_path, "lvis/lvis_v1_train.json", "coco/train2017/")
    assert found(tmp_path / "lvis") == {"train": ("lvis", "lvis_v1_train.json", "../coco")}


YAML = "names: [cat]\ntrain: images/train\nval: images/val\n"


def test_yolo(tmp_path: Path) -> None:
    root = tree(tmp_path, "images/train/", "images/val/")
    (root / "data.yaml").write_text(YAML)
    assert found(root) == {
        "train": ("yolo", "data.yaml", "images/train"),
        "val": ("yolo", "data.yaml", "images/val"),
    }
    assert find_splits(root / "data.yaml") == find_splits(root)


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (  # supervision's
            ["images/train/", "labels/train/", "images/val/", "labels/val/"],
            {"train": "images/train", "val": "images/val"},
        ),
        (
            ["train/images/", "train/labels/", "valid/images/", "valid/labels/", "test/images/"],
            {"train": "train/images", "val": "valid/images"},
        ),
        (["images/", "labels/"], {"train": "images"}),
        (["images/train/"], {}),
    ],
)
@pytest.mark.parametrize("name", ["data.yaml", "shapes.yaml"])
def test_yolo_with_names_alone(
    tmp_path: Path, folders: list[str], expected: dict[str, str], name: str
) -> None:
    root = tree(tmp_path, *folders)
    (root / name).write_text("names: [cat]\nnc: 1\n")
    assert found(root) == {split: ("yolo", name, images) for split, images in expected.items()}


def test_yolo_yields_to_a_json_of_the_same_split(tmp_path: Path) -> None:
    root = tree(tmp_path, "images/train/", "images/val/", "annotations/instances_val.json")
    (root / "data.yaml").write_text(YAML)
    assert {name: files.format for name, files in find_splits(root).items()} == {
        "val": "coco",
        "train": "yolo",
    }


def test_only_a_yaml_that_describes_a_dataset_counts(tmp_path: Path) -> None:
    root = tree(tmp_path, "images/train/")
    (root / "settings.yaml").write_text("lr: 0.1")
    assert find_splits(root) == {}
    (root / "settings.yaml").write_text(YAML)
    assert list(find_splits(root)) == ["train"]
    (root / "other.yaml").write_text(YAML)
    assert find_splits(root) == {}
    (root / "data.yaml").write_text("names: [")
    with pytest.raises(DatasetError, match=r"data\.yaml: cannot be read as YAML"):
        find_splits(root)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("train", "train"),
        ("train2017", "train"),
        ("val", "val"),
        ("valid", "val"),
        ("validation", "val"),
        ("val2017", "val"),
        ("test-dev", "test-dev"),
        ("test-dev2017", "test-dev"),
        ("test_dev", "test-dev"),
    ],
)
def test_a_split_has_several_names(tmp_path: Path, name: str, key: str) -> None:
    tree(tmp_path, *LAYOUTS["COCO's own"][0])
    assert find_split(str(tmp_path), name) == find_splits(tmp_path)[key]
    assert find_split(tmp_path, name).name == key


def test_find_split_returns_files(tmp_path: Path) -> None:
    tree(tmp_path, *LAYOUTS["ours"][0])
    file = tmp_path / "annotations" / "instances_train.json"
    assert find_split(tmp_path, "train") == SplitFiles("train", "coco", file, tmp_path / "train")


# --- what is refused


def test_missing_split_lists_what_was_looked_for_and_what_is_there(tmp_path: Path) -> None:
    tree(tmp_path, "annotations/instances_train.json", "train/")
    with pytest.raises(DatasetError) as raised:
        find_split(tmp_path, "val")
    assert str(raised.value) == (
        f"no split 'val' in {tmp_path}; splits found: train; looked for "
        "annotations/instances_val.json with val/ or images/val/, val/_annotations.coco.json, "
        "val.json with images/, lvis_v1_val.json, such an .xml (CVAT for images), val/*.json of "
        "LabelMe, and 'val' in a data.yaml; "
        f"{tmp_path} holds annotations/, train/; {tmp_path}/annotations holds "
        "instances_train.json"
    )


def test_annotations_without_images_are_named(tmp_path: Path) -> None:
    tree(tmp_path, "annotations/instances_train.json", "train/", "annotations/instances_val.json")
    assert list(find_splits(tmp_path)) == ["train"]
    message = r"no images for split 'val': \S+instances_val\.json is there, but \S+/val \(a fold"
    with pytest.raises(DatasetError, match=message):
        find_split(tmp_path, "val")


def test_two_candidates_are_named(tmp_path: Path) -> None:
    tree(tmp_path, *LAYOUTS["two years"][0])
    message = r"split 'train' may be train2014 \(\S+\) or train2017 \(\S+\); name one of them"
    with pytest.raises(DatasetError, match=message):
        find_split(tmp_path, "train")
    assert find_split(tmp_path, "train2014").images == tmp_path / "train2014"
    with pytest.raises(DatasetError, match=r"no split 'train2015' .* found: train2014, train2017"):
        find_split(tmp_path, "train2015")


def test_missing_or_empty_root(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="nowhere is no folder; give the folder of the dataset"):
        find_split(tmp_path / "nowhere", "train")
    with pytest.raises(DatasetError, match=r"no split was found; looked for .* holds nothing$"):
        find_split(tree(tmp_path, "empty/") / "empty", "train")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_unreadable_root(tmp_path: Path) -> None:
    tmp_path.chmod(0)
    try:
        with pytest.raises(DatasetError, match=rf"{re.escape(str(tmp_path))}: .*permissions"):
            find_splits(tmp_path)
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_folder_beside_the_splits_is_left_alone(tmp_path: Path) -> None:
    tree(tmp_path, *LAYOUTS["ours"][0], "lost+found/")
    (tmp_path / "lost+found").chmod(0)
    try:
        assert set(find_splits(tmp_path)) == {"train", "val"}
    finally:
        (tmp_path / "lost+found").chmod(0o700)
