"""Generated datasets are sound, repeatable, and look like what they claim to hold."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffinst.datasets.load import load_split
from diffinst.datasets.segmentation import rasterize
from diffinst.datasets.split import Split
from diffinst.datasets.synthetic import SHAPES, make_shapes
from diffinst.io.images import read_image


def contents(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def count(split: Split) -> list[int]:
    return [len(record.annotations) for record in split.records]


def test_layout(tmp_path: Path) -> None:
    root = tmp_path / "new" / "shapes"
    assert make_shapes(root, train=2, val=1) == root
    assert sorted(contents(root)) == [
        "annotations/instances_train.json",
        "annotations/instances_val.json",
        "train/000000.png",
        "train/000001.png",
        "val/000000.png",
    ]


def test_both_splits_load(tmp_path: Path) -> None:
    make_shapes(tmp_path, train=3, val=2, size=(40, 50))
    train, val = load_split(tmp_path, "train"), load_split(str(tmp_path), "val")
    assert (len(train.records), len(val.records)) == (3, 2)
    assert train.classes == val.classes == SHAPES
    assert train.category_ids == (1, 2, 3)
    for record in (*train.records, *val.records):
        assert (record.height, record.width) == (40, 50)
        assert read_image(record.path).shape == (40, 50, 3)


def test_masks_are_disjoint_and_agree_with_box_and_area(tmp_path: Path) -> None:
    make_shapes(tmp_path, train=4, val=0, objects=(4, 8))
    for record in load_split(tmp_path, "train").records:
        covered = np.zeros((record.height, record.width), int)
        for one in record.annotations:
            mask = rasterize(one.segmentation, record.height, record.width)
            rows, columns = np.nonzero(mask)
            tight = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert one.box == tight
            assert one.area == mask.sum() > 0
            assert one.crowd is False
            covered += mask
        assert covered.max() == 1  # visible parts only


def test_shapes_stand_out_from_the_background(tmp_path: Path) -> None:
    make_shapes(tmp_path, train=6, val=0, objects=(2, 4))
    for record in load_split(tmp_path, "train").records:
        image = read_image(record.path).astype(float)
        saturation = image.max(-1) - image.min(-1)
        masks = [rasterize(a.segmentation, record.height, record.width) for a in record.annotations]
        background = ~np.any(masks, axis=0)
        for mask in masks:
            assert saturation[mask].mean() > 3 * saturation[background].mean()


def test_shapes_have_their_form(tmp_path: Path) -> None:
    # How much of its smallest upright box a lone shape fills, whatever its turn: a disc pi / 4,
    # an equilateral triangle at most 0.5, a box anything. Pixels blur it, borders cut some off.
    make_shapes(tmp_path, train=30, val=0, size=(300, 300), objects=(1, 1))
    filled: dict[int, list[float]] = {0: [], 1: [], 2: []}
    for record in load_split(tmp_path, "train").records:
        (one,) = record.annotations
        left, top, right, bottom = one.box
        if left > 0 and top > 0 and right < record.width and bottom < record.height:
            filled[one.label].append(one.area / ((right - left) * (bottom - top)))
    assert all(len(values) > 0 for values in filled.values())
    np.testing.assert_allclose(filled[0], np.pi / 4, atol=0.03)
    assert max(filled[2]) < 0.55


def test_number_of_objects_stays_in_its_range(tmp_path: Path) -> None:
    make_shapes(tmp_path, train=30, val=1, size=(32, 32), objects=(0, 3))
    assert set(count(load_split(tmp_path, "train"))) == {0, 1, 2, 3}


@pytest.mark.parametrize("classes", [("triangle",), ("triangle", "disc"), ["box", "disc"]])
def test_order_of_classes_gives_the_category_ids(tmp_path: Path, classes: Any) -> None:
    make_shapes(tmp_path, train=6, val=1, classes=classes, objects=(3, 3))
    split = load_split(tmp_path, "train")
    assert split.classes == tuple(classes)
    labels = {one.label for record in split.records for one in record.annotations}
    assert labels == set(range(len(classes)))


def test_same_seed_same_files_other_seed_others(tmp_path: Path) -> None:
    first, again, other = (
        contents(make_shapes(tmp_path / name, train=2, val=1, seed=seed))
        for name, seed in [("first", 3), ("again", 3), ("other", 4)]
    )
    assert first == again
    assert all(first[name] != other[name] for name in first)


def test_images_do_not_depend_on_their_number(tmp_path: Path) -> None:
    few = contents(make_shapes(tmp_path / "few", train=2, val=1))
    many = contents(make_shapes(tmp_path / "many", train=4, val=2))
    assert all(many[name] == few[name] for name in few if name.endswith(".png"))


def test_splits_differ(tmp_path: Path) -> None:
    files = contents(make_shapes(tmp_path, train=1, val=1))
    assert files["train/000000.png"] != files["val/000000.png"]


def test_empty_splits(tmp_path: Path) -> None:
    make_shapes(tmp_path, train=0, val=0)
    assert load_split(tmp_path, "train").records == ()


def test_own_files_are_replaced(tmp_path: Path) -> None:
    make_shapes(tmp_path, train=3, val=1, seed=0)
    make_shapes(tmp_path, train=2, val=1, seed=1)
    assert len(load_split(tmp_path, "train").records) == 2


def test_annotations_of_others_are_not_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "annotations" / "instances_val.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"images": []}), encoding="utf-8")
    with pytest.raises(FileExistsError, match=r"instances_val\.json exists .*: choose an empty f"):
        make_shapes(tmp_path)
    assert json.loads(file.read_text(encoding="utf-8")) == {"images": []}
    assert not (tmp_path / "train").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train": -1}, "train=-1, val=4; allowed are numbers from 0"),
        ({"val": -2}, "train=8, val=-2; allowed"),
        ({"size": (31, 64)}, r"size=\(31, 64\); allowed is \(height, width\) with 32 or more each"),
        (
            {"classes": ()},
            r"classes=\(\); allowed are one or more of \('disc', 'box', 'triangle'\)",
        ),
        ({"classes": ("disc", "cat")}, r"classes=\('disc', 'cat'\); allowed"),
        ({"classes": "disc"}, "classes='disc'; allowed"),
        ({"classes": ("disc", "disc")}, r"\('disc', 'disc'\); name each class once"),
        ({"seed": -1}, "seed=-1; allowed are numbers from 0"),
        ({"objects": (3, 2)}, r"objects=\(3, 2\); allowed is \(fewest, most\) with 0 <= fewest"),
        ({"objects": (-1, 2)}, r"objects=\(-1, 2\); allowed"),
        (
            {"objects": (300, 300), "size": (32, 32)},
            r"objects=\(300, 300\): only \d+ of 300 shapes fit on an image; ask for",
        ),
    ],
)
def test_arguments_out_of_range(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_shapes(tmp_path, **arguments)
