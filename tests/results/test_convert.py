"""What a result converts to says the same as its fields."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from scenes import dot, scene

from diffinst.results.crops import CroppedMasks
from diffinst.results.instances import Instances


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
def test_coco_results_say_the_same_as_the_fields() -> None:
    found = scene()
    results = found.to_coco(image_id=42)
    assert [r["image_id"] for r in results] == [42] * 3
    assert [r["category_id"] for r in results] == [1, 2, 2]
    assert [r["score"] for r in results] == [0.5, 0.75, 0.25]
    predicted = [r["bbox"] for r in found.to_coco(boxes="predicted")]
    assert predicted == [[1, 1, 2, 2], [2, 0, 3, 2], [4.5, 2.5, 1.5, 1.5]]
    tight = [coco_mask.toBbox(r["segmentation"]).tolist() for r in results]
    assert [r["bbox"] for r in results] == tight != predicted
    decoded = coco_mask.decode([json.loads(json.dumps(r["segmentation"])) for r in results])
    assert np.array_equal(decoded.transpose(2, 0, 1).astype(bool), found.masks.numpy())


def test_coco_results_take_the_annotation_files_category_ids() -> None:
    assert [r["category_id"] for r in scene().to_coco(1, category_ids=[17, 90])] == [17, 90, 90]
    with pytest.raises(ValueError, match="3 category ids for 2 classes"):
        scene().to_coco(1, category_ids=[1, 2, 3])


@pytest.mark.parametrize("version", ["compact", "no run lengths", "no compact masks"])
def test_supervision_gets_every_field(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    supervision = pytest.importorskip("supervision", "0.30")
    if version == "no run lengths":
        monkeypatch.delattr(supervision.CompactMask, "from_coco_rle")
    if version == "no compact masks":
        monkeypatch.delattr(supervision, "CompactMask")
    # The first box does not enclose its mask, the second mask is empty.
    found = replace(scene(), boxes=torch.tensor([[1.0, 1, 2, 2], [2, 0, 5, 2], [4.5, 2.5, 6, 4]]))
    dense = found.masks
    dense[1] = False
    found = replace(found, mask_crops=CroppedMasks.from_dense(dense))
    detections = found.to_supervision()
    assert isinstance(detections.mask, np.ndarray) == (version != "compact")
    assert np.array_equal(detections.xyxy, found.tight().boxes.numpy())
    assert np.array_equal(detections.xyxy[1], found.boxes[1].numpy())
    assert np.array_equal(found.to_supervision(boxes="predicted").xyxy, found.boxes.numpy())
    assert np.array_equal(np.asarray(detections.mask), dense.numpy())
    assert detections.area.tolist() == [4, 0, 1]
    assert np.array_equal(np.asarray(detections.confidence), found.scores.numpy())
    assert np.asarray(detections.class_id).tolist() == [0, 1, 1]
    assert list(detections.data["class_name"]) == ["cat", "dog", "dog"]


def test_boxes_that_are_handed_on_enclose_their_masks_unless_asked_otherwise() -> None:
    found = replace(scene(), boxes=torch.tensor([[1.0, 1, 2, 2], [3, 1, 4, 2], [5, 3, 6, 4]]))
    for result, mask in zip(found.to_coco(), found.masks.numpy(), strict=True):
        x, y, width, height = map(int, result["bbox"])
        assert mask[y : y + height, x : x + width].sum() == mask.sum()
    wrong: Any = "loose"
    with pytest.raises(ValueError, match="boxes is 'loose'; allowed are 'tight' and 'predicted'"):
        found.to_coco(boxes=wrong)


def test_supervision_gets_full_size_masks_of_images_beyond_its_limit() -> None:
    pytest.importorskip("supervision")
    long = CroppedMasks(
        torch.tensor([[0, 39_999, 1, 1]]), (torch.ones(1, 1, dtype=torch.bool),), (1, 40_000)
    )
    found = replace(dot(), mask_crops=long, image_size=(1, 40_000))
    assert np.argwhere(np.asarray(found.to_supervision().mask)).tolist() == [[0, 0, 39_999]]


COLUMNS = ["label", "class_name", "score", "x0", "y0", "x1", "y1", "area"]


def test_pandas_gets_a_row_per_instance() -> None:
    pytest.importorskip("pandas")
    found = scene()
    frame = found.to_pandas()
    assert list(frame.columns) == COLUMNS
    assert frame.to_numpy().tolist() == [
        [0, "cat", 0.5, 1, 1, 3, 3, 4],
        [1, "dog", 0.75, 2, 0, 5, 2, 6],
        [1, "dog", 0.25, 4.5, 2.5, 6, 4, 1],
    ]
    assert found[frame.area > 3] == found[:2]
    assert found[frame.sort_values("score").index] == found[[2, 0, 1]]


@pytest.mark.parametrize("package", ["supervision", "pandas"])
def test_without_a_package_the_error_names_the_command(
    monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"pip install diffinst\[{package}\]"):
        getattr(scene(), f"to_{package}")()


def test_label_map_numbers_instances_by_score(tmp_path: Path) -> None:
    # Scores 0.5, 0.75, 0.25 are ranks 2, 1, 3; rank 1 keeps the shared pixel (1, 2).
    label_map = scene().to_label_map()
    assert label_map.dtype == np.uint16
    assert label_map.tolist() == [
        [0, 0, 1, 1, 1, 0],
        [0, 2, 1, 1, 1, 0],
        [0, 2, 2, 0, 0, 0],
        [0, 0, 0, 0, 0, 3],
    ]
    assert dot().to_label_map().tolist() == [[1]]
    scene().save_masks(tmp_path / "masks.png")
    image = Image.open(tmp_path / "masks.png")
    assert image.mode == "I;16"
    assert np.array_equal(np.asarray(image), label_map)


@pytest.mark.parametrize(("n", "dtype"), [(65_535, np.uint16), (65_536, np.uint32)])
def test_label_map_counts_more_instances_than_16_bits(
    tmp_path: Path, n: int, dtype: type[np.unsignedinteger]
) -> None:
    # A pixel each on an image 256 wide; the scores fall, so that pixel i shows rank i + 1.
    place = torch.arange(n)
    windows = torch.stack([place // 256, place % 256, *torch.ones(2, n).long()], dim=1)
    masks = CroppedMasks(windows, (torch.ones(1, 1, dtype=torch.bool),) * n, (256, 256))
    scores = torch.linspace(1, 0, n, dtype=torch.float64).float()
    found = Instances(
        torch.zeros(n, 4), scores, torch.zeros(n).long(), masks, (256, 256), ("star",)
    )
    label_map = found.to_label_map()
    assert label_map.dtype == dtype
    assert np.array_equal(label_map.reshape(-1)[:n], np.arange(1, n + 1))
    if dtype == np.uint16:
        found.save_masks(tmp_path / "masks.png")
        assert np.array_equal(np.asarray(Image.open(tmp_path / "masks.png")), label_map)
    else:
        with pytest.raises(ValueError, match="count 65535 instances, here are 65536"):
            found.save_masks(tmp_path / "masks.png")


def tracked() -> Instances:
    return replace(
        scene(),
        ids=torch.tensor([7, 3, 9]),
        stability=torch.tensor([1.0, 0.5, 0.25]),
        score_spread=torch.tensor([0.0, 0.125, 0.25]),
        mask_agreement=torch.tensor([0.75, 0.5, 1.0]),
    )


@pytest.mark.parametrize("found", [scene(), tracked(), scene()[:0]])
def test_coco_results_are_read_again_as_they_were(found: Instances) -> None:
    written = json.loads(json.dumps(found.to_coco(boxes="predicted")))
    assert Instances.from_coco(written, found.image_size, found.class_names) == found


def test_coco_results_of_another_image_or_class_are_refused() -> None:
    results = scene().to_coco()
    with pytest.raises(ValueError, match=r"result 0: its mask belongs to an image of \(4, 6\)"):
        Instances.from_coco(results, (5, 6), ("cat", "dog"))
    with pytest.raises(ValueError, match=r"result 1: category_id is 2; known are \[1\]"):
        Instances.from_coco(results, (4, 6), ("cat",))


def test_optional_fields_go_along_everywhere() -> None:
    found = tracked()
    assert [entry["track_id"] for entry in found.to_coco()] == [7, 3, 9]
    assert [entry["stability"] for entry in found.to_coco()] == [1.0, 0.5, 0.25]
    shown = found.to_supervision()
    assert shown.tracker_id is not None and shown.tracker_id.tolist() == [7, 3, 9]
    assert np.asarray(shown.data["score_spread"]).tolist() == [0.0, 0.125, 0.25]
    assert found.to_pandas()["mask_agreement"].tolist() == [0.75, 0.5, 1.0]
    assert found.to_pandas()["ids"].tolist() == [7, 3, 9]


def test_optional_fields_are_picked_joined_and_compared() -> None:
    found = tracked()
    assert found[[2, 0]].ids.tolist() == [9, 7]  # type: ignore[union-attr]
    assert Instances.cat([found[:1], found[1:]]) == found
    assert found != scene() and found != replace(found, ids=torch.tensor([7, 3, 8]))
    with pytest.raises(ValueError, match="cannot join 2 results of which 1 have ids"):
        Instances.cat([found, scene()])
    with pytest.raises(ValueError, match=r"ids are torch.float32 of shape \(3,\)"):
        replace(found, ids=torch.zeros(3))
