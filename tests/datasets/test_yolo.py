"""YOLO segmentation is read as polygons in pixels; what is no mask is refused or told."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffinst.datasets import cache, data_yaml, yolo
from diffinst.datasets.layouts import find_split
from diffinst.datasets.load import load_split
from diffinst.datasets.segmentation import DatasetError, rasterize
from diffinst.datasets.split import Split

# In an image of 4 rows and 8 columns: x 0.25 * 8 = 2 to 0.5 * 8 = 4, y 0.25 * 4 = 1 to
# 0.75 * 4 = 3, so four pixels.
SQUARE = "0.25 0.25 0.5 0.25 0.5 0.75 0.25 0.75"
POLYGON = [2.0, 1.0, 4.0, 1.0, 4.0, 3.0, 2.0, 3.0]
ALIASES = "a0: &a0 [x]\n" + "\n".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)
)
YAML = "names: [cat, dog]\ntrain: images/train\nval: images/val\n"


def image(path: Path, size: tuple[int, int] = (8, 4), orientation: int | None = None) -> None:
    """Size is (width, height), as stored."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size)
    exif = image.getexif()
    if orientation is not None:
        exif[0x0112] = orientation
    image.save(path, exif=exif)


def write(root: Path, labels: dict[str, str], content: str = YAML) -> Path:
    """Images 8 wide and 4 high in images/train with these labels."""
    (root / "data.yaml").write_text(content)
    for name, text in labels.items():
        image(root / "images" / "train" / f"{name}.png")
        file = root / "labels" / "train" / f"{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def names(split: Split) -> list[str]:
    return [record.path.name for record in split.records]


def test_polygons_become_masks(tmp_path: Path) -> None:
    root = write(tmp_path, {"b": f"1 {SQUARE}\n\n0 {SQUARE}  \n", "a": ""})
    split = load_split(root, "train")
    assert (split.classes, split.category_ids) == (("cat", "dog"), (0, 1))
    assert names(split) == ["a.png", "b.png"]
    empty, record = split.records
    assert [r.id for r in split.records] == [1, 2]
    assert empty.annotations == ()
    assert (record.height, record.width) == (4, 8)
    assert [(a.id, a.label) for a in record.annotations] == [(1, 1), (2, 0)]
    one = record.annotations[0]
    assert one.segmentation == [POLYGON]
    assert one.box == (2.0, 1.0, 4.0, 3.0)
    assert one.area == 4.0
    assert not one.crowd
    expected = np.zeros((4, 8), bool)
    expected[1:3, 2:4] = True
    assert np.array_equal(rasterize(one.segmentation, 4, 8), expected)


def test_an_image_without_a_label_file_has_no_objects(tmp_path: Path) -> None:
    root = write(tmp_path, {"a": f"0 {SQUARE}", "b": f"0 {SQUARE}", "c": ""})
    (root / "labels" / "train" / "a.txt").unlink()
    message = r"1 of 3 images of 'train' have no label file \(first \S+train/a\.png\): taken as sh"
    with pytest.warns(UserWarning, match=message):
        split = load_split(root, "train")
    assert [len(r.annotations) for r in split.records] == [0, 1, 0]


def test_shares_refer_to_the_image_turned_upright(tmp_path: Path) -> None:
    root = write(tmp_path, {"a": f"0 {SQUARE}"})
    image(root / "images" / "train" / "a.png", size=(4, 8), orientation=6)
    (record,) = load_split(root, "train").records
    assert (record.height, record.width) == (4, 8)
    assert record.annotations[0].segmentation == [POLYGON]


@pytest.mark.parametrize(
    ("given", "classes", "ids"),
    [
        ("names: [cat, dog]\nnc: 2", ("cat", "dog"), (0, 1)),
        ("names: {0: cat, 1: dog}", ("cat", "dog"), (0, 1)),
        ("names: {7: dog, 0: cat}", ("cat", "dog"), (0, 7)),
        ("names: [1, 2]", ("1", "2"), (0, 1)),
    ],
)
def test_names(tmp_path: Path, given: str, classes: tuple[str, ...], ids: tuple[int, ...]) -> None:
    root = write(tmp_path, {"a": f"{ids[1]} {SQUARE}"}, f"{given}\ntrain: images/train\n")
    split = load_split(root, "train")
    assert (split.classes, split.category_ids) == (classes, ids)
    assert split.records[0].annotations[0].label == 1


# --- where images and labels are


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/train/a.jpg", "labels/train/a.txt"),
        ("train/images/a.b.jpg", "train/labels/a.b.txt"),
        ("images/x/images/a.jpg", "images/x/labels/a.txt"),
        ("train/a.jpg", "train/a.txt"),
        ("images/a.images", "labels/a.txt"),
    ],
)
def test_label_path(image: str, label: str) -> None:
    assert yolo.label_path(Path(image)) == Path(label)


@pytest.mark.parametrize("where", ["images/data", "images/data/images"])
def test_folders_above_the_dataset_may_be_called_images(tmp_path: Path, where: str) -> None:
    root = tmp_path / where
    image(root / "train" / "a.png")
    (root / "train" / "a.txt").write_text(f"0 {SQUARE}")
    ahead, _, behind = str(root).rpartition("images")
    lure = Path(f"{ahead}labels{behind}") / "train" / "a.txt"  # of another dataset
    lure.parent.mkdir(parents=True)
    lure.write_text("")
    (root / "data.yaml").write_text("names: [cat]\ntrain: train\n")
    assert [len(r.annotations) for r in load_split(root, "train").records] == [1]


def test_labels_beside_images_in_images(tmp_path: Path) -> None:
    root = write(tmp_path, {"a": f"0 {SQUARE}"})
    os.replace(root / "labels" / "train" / "a.txt", root / "images" / "train" / "a.txt")
    assert [len(r.annotations) for r in load_split(root, "train").records] == [1]


def test_labels_next_to_a_base_called_images(tmp_path: Path) -> None:
    root = write(tmp_path, {"a": f"0 {SQUARE}"})
    os.replace(root / "data.yaml", root / "images" / "data.yaml")
    (root / "images" / "data.yaml").write_text("names: [cat]\ntrain: train\n")
    assert [len(r.annotations) for r in load_split(root / "images", "train").records] == [1]


def test_roboflow(tmp_path: Path) -> None:
    """Its paths lead out of the export, and its test split may be missing."""
    for split in ("train", "valid"):
        image(tmp_path / split / "images" / "a.jpg")
        (tmp_path / split / "labels").mkdir()
        (tmp_path / split / "labels" / "a.txt").write_text(f"0 {SQUARE}")
    (tmp_path / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 1\nnames: ['cat']"
    )
    assert set(data_yaml.sources(tmp_path / "data.yaml")) == {"train", "val"}
    valid = load_split(tmp_path, "valid")
    assert valid.records[0].path == tmp_path / "valid" / "images" / "a.jpg"
    assert len(valid.records[0].annotations) == 1


@pytest.mark.parametrize("path", [".", "data", "/of/another/machine"])
def test_the_path_key(tmp_path: Path, path: str) -> None:
    root = tmp_path / "data"
    root.mkdir()
    write(root, {"a": f"0 {SQUARE}"}, f"path: {path}\n{YAML}")
    assert len(load_split(root, "train").records) == 1


def test_several_folders_and_lists(tmp_path: Path) -> None:
    root = write(tmp_path, {"a": f"0 {SQUARE}"})
    image(root / "more" / "images" / "b.png")
    image(root / "rest" / "c.png")
    (root / "list.txt").write_text("./rest/c.png\n\nimages/train/a.png\nrest/c.png\n")
    (root / "data.yaml").write_text(
        "names: [cat]\ntrain: [images/train, more/images]\nval: list.txt\n"
    )
    train = load_split(root, "train")
    assert names(train) == ["a.png", "b.png"]
    assert train.image_dir == root
    with pytest.warns(UserWarning, match=r"data\.yaml: 'val' lists c\.png more than once"):
        val = load_split(root, "val")
    assert names(val) == ["c.png", "a.png"]


# --- boxes


def test_single_boxes_become_rectangles_and_are_told(tmp_path: Path) -> None:
    # Centre (0.375, 0.5), sides (0.25, 0.5): x 0.25 to 0.5, y 0.25 to 0.75, the square above.
    root = write(tmp_path, {"a": f"0 {SQUARE}\n1 0.375 0.5 0.25 0.5"})
    with pytest.warns(UserWarning, match=r"1 of 2 objects of 'train' are boxes .*a\.txt, line 2\)"):
        (record,) = load_split(root, "train").records
    assert record.annotations[1].segmentation == [POLYGON]


def test_nothing_but_boxes_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path, {"a": "0 0.5 0.5 0.1 0.1\n", "b": "1 0.5 0.5 0.1 0.1"})
    with pytest.raises(DatasetError, match=r"a\.txt, line 1: .* are a box, .* masks are needed"):
        load_split(root, "train")


# --- what is left out or refused


def test_objects_without_extent_are_left_out(tmp_path: Path) -> None:
    labels = f"0 {SQUARE}\n0 0.5 0.5\n0 0.5 0.5 0.5 0.5 0.5 0.5"
    root = write(tmp_path, {"a": labels})
    with pytest.warns(UserWarning, match=r"fewer than three points \(id 2\); .*no area .*\(id 3\)"):
        (record,) = load_split(root, "train").records
    assert [a.id for a in record.annotations] == [1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"2 {SQUARE}", r"class 2 is not among those in 'names' of \S+data\.yaml \(0, 1\)"),
        (f"-1 {SQUARE}", "class -1 is not among"),
        (f"0.5 {SQUARE}", "9 numbers, the first 0.5; allowed is a class number and x1 y1"),
        (f"0 {SQUARE} 0.1", "10 numbers, the first 0; allowed is"),
        ("0", "1 numbers, the first 0"),
        (f"cat {SQUARE}", "'cat 0.25 .* are no numbers; correct it"),
        ("0 10 10 20 10 20 20", "10 is outside the image; coordinates are fractions of its width"),
        ("0 0.1 0.1 nan 0.1 0.2 0.2", "nan is outside the image"),
        ("0 -0.2 0.1 0.1 0.1 0.2 0.2", "-0.2 is outside the image"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    root = write(tmp_path, {"a": f"0 {SQUARE}\n{line}"})
    with pytest.raises(DatasetError, match=rf"labels/train/a\.txt, line 2: .*{message}"):
        load_split(root, "train")


def test_a_little_beyond_the_border_is_cut(tmp_path: Path) -> None:
    root = write(tmp_path, {"a": "0.0 0.5 0.5 1.05 0.5 1.05 1.01 0.5 1.01"})
    (record,) = load_split(root, "train").records
    assert record.annotations[0].box == (4.0, 2.0, 8.0, 4.0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("train: images/train", "'names' is None; give a list of class names"),
        ("names: []\ntrain: images/train", r"'names' is \[\]; give a list"),
        ("names: {a: cat}\ntrain: images/train", "'names' is .*; give a list"),
        ("names: [cat, cat]\ntrain: images/train", "'names' holds cat more than once; rename"),
        ("names: [cat]\nnc: 2\ntrain: images/train", "'nc' is 2, 'names' holds 1; correct one"),
        ("names: [cat]\ntrain: 5", "'train' or 'path' holds 5; allowed are a folder"),
        ("names: [cat]\ntrain: [images/train, none]", "'none' of 'train' is no folder and no .txt"),
        ("- 1", "expected 'names', 'train' and 'val'"),
        ("names: [cat\n", "cannot be read as YAML"),
        (
            "names: !!python/name:os.system []",
            r"cannot be read as YAML \(could not determine a cons",
        ),
        ("names: " + "[" * 50_000, r"cannot be read as YAML \(lists within lists, too deep"),
        (ALIASES, r"cannot be read as YAML \(more than 1000000 values, aliases written out"),
    ],
)
def test_a_wrong_data_yaml_is_named(tmp_path: Path, content: str, message: str) -> None:
    root = write(tmp_path, {"a": f"0 {SQUARE}"}, content)
    with pytest.raises(DatasetError, match=rf"data\.yaml: .*{message}"):
        load_split(root, "train")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["data.yaml", "labels/train/a.txt", "images/train/a.png", "l.txt"])
def test_pipes_are_not_waited_for(tmp_path: Path, name: str) -> None:
    listed = "names: [cat]\ntrain: l.txt\n"
    root = write(tmp_path, {"a": f"0 {SQUARE}"}, listed if name == "l.txt" else YAML)
    (root / name).unlink(missing_ok=True)
    os.mkfifo(root / name)
    with pytest.raises(DatasetError, match=f"(?s){name}: cannot be read.*it is a pipe|no split"):
        load_split(root, "train")


def test_missing_labels_and_images(tmp_path: Path) -> None:
    root = write(tmp_path, {"a": f"0 {SQUARE}"})
    (root / "labels" / "train" / "a.txt").unlink()
    message = r"none of the 1 images of 'train' has a label file; looked for \S+labels/train/a\.t"
    with pytest.raises(DatasetError, match=message):
        load_split(root, "train")
    (root / "images" / "train" / "a.png").unlink()
    with pytest.raises(DatasetError, match="'train': no images in"):
        load_split(root, "train")
    (root / "images" / "train" / "a.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"a\.png: cannot be read as an image"):
        load_split(root, "train")
    (root / "list.txt").write_text("images/none.png")
    (root / "data.yaml").write_text("names: [cat]\ntrain: list.txt")
    with pytest.raises(
        DatasetError, match=r"list\.txt, line 1: images/none\.png is missing on dis"
    ):
        load_split(root, "train")


def test_test_images_need_no_labels(tmp_path: Path) -> None:
    root = write(tmp_path, {}, "names: [cat]\ntest: images\n")
    image(root / "images" / "a.png")
    assert [r.annotations for r in load_split(root, "test").records] == [()]


def test_labels_that_are_no_text(tmp_path: Path) -> None:
    root = write(tmp_path, {"a": ""})
    (root / "labels" / "train" / "a.txt").write_bytes(b"\xff\xfe0")
    with pytest.raises(DatasetError, match=r"a\.txt: cannot be read \('utf-8' codec"):
        load_split(root, "train")


# --- many images


def test_many_images_are_kept_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFINST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "FEW_FILES", 1)
    root = tmp_path / "data"
    root.mkdir()
    write(root, {"a": f"0 {SQUARE}", "b": f"1 {SQUARE}"})
    expected = tuple(load_split(root, "train").records)
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 1
    assert load_split(root, "train").records == expected
    label = root / "labels" / "train" / "a.txt"
    label.write_text("")
    assert [len(r.annotations) for r in load_split(root, "train").records] == [0, 1]
    image(root / "images" / "train" / "c.png")
    assert names(load_split(root, "train")) == ["a.png", "b.png", "c.png"]
    file = find_split(root, "train").annotations
    before = yolo.state(file, "train")
    os.utime(label, ns=(1, 1))
    assert yolo.state(file, "train") != before
