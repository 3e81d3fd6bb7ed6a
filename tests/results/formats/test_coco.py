"""Does pycocotools, and our own reader, find the very masks in what is written?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO

from diffinst.results.formats.coco import CocoFile
from diffinst.results.formats.scene import Scene, place_image


def write(path: Path, *scenes: Scene, boxes: bool = True) -> Path:
    file = CocoFile(path, scenes[0].found.class_names, boxes=boxes)
    for scene in scenes:
        file.add(scene)
    file.finish()
    return path


def test_pycocotools_finds_the_very_masks(scene: Scene, tmp_path: Path) -> None:
    coco = COCO(write(tmp_path / "coco.json", scene))
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
    masks = np.stack([coco.annToMask(one) for one in annotations]).astype(bool)
    assert np.array_equal(masks, scene.found.masks.numpy())
    assert [one["area"] for one in annotations] == scene.found.mask_crops.area().tolist()
    assert [one["bbox"] for one in annotations][:2] == [[0, 0, 1, 1], [13, 9, 4, 3]]
    assert [one["score"] for one in annotations] == scene.found.scores.tolist()
    kinds = [type(one["segmentation"]) for one in annotations]
    assert kinds == [list, list, list, dict, list]  # the one with holes
    assert [len(one["segmentation"]) for one in annotations if one["id"] in (3, 5)] == [2, 3]


def test_it_is_a_dataset(
    scene: Scene,
    nothing: Scene,
    tmp_path: Path,
    read_back: Callable[[Path], list[list[tuple[str, object]]]],
    same: Callable[[list[tuple[str, object]], Scene], None],
) -> None:
    for boxes in (True, False):
        root = tmp_path / str(boxes)
        for one in (scene, nothing):
            place_image(one, root / "images")
        write(root / "train.json", scene, nothing, boxes=boxes)
        first, second = read_back(root)
        same(first, scene)
        assert second == []
        assert ("bbox" in (root / "train.json").read_text("utf-8")) == boxes


def test_without_objects_or_images_it_is_still_json(nothing: Scene, tmp_path: Path) -> None:
    content = json.loads(write(tmp_path / "a.json", nothing).read_text("utf-8"))
    assert (len(content["images"]), content["annotations"]) == (1, [])
    CocoFile(tmp_path / "b.json", ("cell",)).finish()
    content = json.loads((tmp_path / "b.json").read_text("utf-8"))
    assert content == {
        "images": [],
        "annotations": [],
        "categories": [{"id": 1, "name": "cell"}],
    }


def test_objects_without_pixels_are_left_out(without_pixels: Scene, tmp_path: Path) -> None:
    content = json.loads(write(tmp_path / "a.json", without_pixels).read_text("utf-8"))
    assert [(one["id"], one["category_id"]) for one in content["annotations"]] == [(1, 2)]


def test_a_name_that_is_no_unicode_is_written(scene: Scene, tmp_path: Path) -> None:
    odd = Scene(scene.found, "odd", "odd\udcff.png")
    content = json.loads(write(tmp_path / "a.json", odd).read_bytes())
    assert content["images"][0]["file_name"] == "odd\udcff.png"
