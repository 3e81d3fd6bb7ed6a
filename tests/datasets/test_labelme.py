"""LabelMe's folders are read as they are saved; the doctor notes what training refuses."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffinst.datasets.doctor import repair
from diffinst.datasets.doctor.examine import examine
from diffinst.datasets.load import load_split
from diffinst.datasets.segmentation import DatasetError, rasterize

SQUARE = [[2.0, 1.0], [4.0, 1.0], [4.0, 3.0], [2.0, 3.0]]


def shape(label: str = "cat", points: object = SQUARE, **more: object) -> dict[str, Any]:
    base = {"label": label, "points": points, "shape_type": "polygon", "group_id": None}
    return {**base, **more}


def write(
    root: Path, *shapes: object, split: str = "train", name: str = "a", **more: object
) -> Path:
    """An image of 4 rows and 6 columns, and its json beside it."""
    folder = root / split
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4)).save(folder / f"{name}.png")
    size = {"imageHeight": 4, "imageWidth": 6}
    content = {"version": "5.5.0", "shapes": shapes, "imagePath": f"{name}.png", **size, **more}
    (folder / f"{name}.json").write_text(json.dumps(content))
    return root


def png(mask: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def test_polygons_of_both_splits(tmp_path: Path) -> None:
    write(tmp_path, shape("dog"), shape("cat"), shape("__ignore__"))
    write(tmp_path, name="empty")
    write(tmp_path, shape("mouse"), split="val", name="b", imagePath="..\\photos\\b.png")
    split, val = load_split(tmp_path, "train"), load_split(tmp_path, "val")
    assert split.classes == val.classes == ("cat", "dog", "mouse")
    first, second = split.records
    assert [one.label for one in first.annotations] == [1, 0]
    assert first.annotations[0].segmentation == [[2.0, 1.0, 4.0, 1.0, 4.0, 3.0, 2.0, 3.0]]
    assert (first.height, first.width, second.annotations) == (4, 6, ())
    assert val.records[0].path == tmp_path / "val" / "b.png"
    assert not examine(tmp_path).breaks


def test_a_folder_without_splits_is_train(tmp_path: Path) -> None:
    write(tmp_path, shape(), split=".")
    assert len(load_split(tmp_path, "train").records) == 1


def test_masks_circles_and_groups(tmp_path: Path) -> None:
    pixels = np.array([[1, 0], [1, 1]], bool)
    mask = shape(points=[[2, 1], [3, 2]], shape_type="mask", mask=png(pixels))
    circle = shape(points=[[3, 2], [3, 3.5]], shape_type="circle")
    write(tmp_path, mask, circle, shape(group_id=1), shape(group_id=1))
    (record,) = load_split(tmp_path, "train").records
    first, round_, parts = record.annotations
    expected = np.zeros((4, 6), bool)
    expected[1:3, 2:4] = pixels
    np.testing.assert_array_equal(rasterize(first.segmentation, 4, 6), expected)
    assert round_.box == pytest.approx((1.5, 0.5, 4.5, 3.5), abs=0.6)
    assert len(parts.segmentation) == 2


@pytest.mark.parametrize("kind", ["rectangle", "line", "point", "linestrip", "points"])
def test_shapes_without_a_mask_are_left_out_and_told(tmp_path: Path, kind: str) -> None:
    write(tmp_path, shape(points=[[1, 1], [3, 3]], shape_type=kind), shape())
    with pytest.warns(UserWarning, match=r"left out 1 annotations with an empty segmentation"):
        (record,) = load_split(tmp_path, "train").records
    assert len(record.annotations) == 1


WRONG = [
    (5, r"a\.json, shape 1: 5 is no shape"),
    (shape(points=[[1, 2], [3]]), r"a\.json, shape 1: its point \[3\] is not \[x, y\] in numbers"),
    (shape(points=None), r"a\.json, shape 1: its point None is not"),
    (shape(points=[[1, 10**400]] * 3), r"shape 1: its point \[1, 10{8,}"),
    (shape(points=[[1, 1]], shape_type="circle"), "shape 1: it has 1 points, 2 are needed"),
    (shape(points=SQUARE[:2], shape_type="mask", mask="ab"), "shape 1: its mask is no PNG"),
    (
        shape(points=[[5, 3], [6, 4]], shape_type="mask", mask=png(np.ones((2, 2)))),
        "shape 1: its mask, 2 x 2 at 5, 3, leaves the image",
    ),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG)
def test_a_wrong_shape_is_named_and_can_be_left_out(
    tmp_path: Path, wrong: object, message: str
) -> None:
    root = write(tmp_path / "data", wrong, shape())
    with pytest.raises(DatasetError, match=message):
        load_split(root, "train")
    report = examine(root)
    assert report.breaks
    repair.write(report, tmp_path / "fixed")
    (record,) = load_split(tmp_path / "fixed", "train").records
    assert len(record.annotations) == 1


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    write(tmp_path, shape())
    (tmp_path / "train" / "b.json").write_text('{"shapes": [')
    with pytest.raises(
        DatasetError, match=r"train: \S+b\.json: b\.json is broken JSON .*; save it"
    ):
        load_split(tmp_path, "train")
    assert "broken-file" in {finding.code for finding in examine(tmp_path).findings}


def test_files_of_other_kinds_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path, shape())
    (tmp_path / "train" / "notes.json").write_text("[1]")
    assert len(load_split(tmp_path, "train").records) == 1


def test_a_size_that_is_missing_is_named(tmp_path: Path) -> None:
    write(tmp_path, shape(), imageHeight=None)
    with pytest.raises(DatasetError, match=r"train: image 1: height: .*given None"):
        load_split(tmp_path, "train")
