"""Does a result keep its fields together, and do its exports say the same?"""

from __future__ import annotations

import builtins
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from diffinst.results.crops import CroppedMasks
from diffinst.results.instances import Instances


def scene() -> Instances:
    """Three instances on a 4x6 image; the first two masks share the pixel (1, 2)."""
    masks = torch.zeros(3, 4, 6, dtype=torch.bool)
    masks[0, 1:3, 1:3] = True
    masks[1, 0:2, 2:5] = True
    masks[2, 3, 5] = True
    return Instances(
        boxes=torch.tensor([[1.0, 1, 3, 3], [2, 0, 5, 2], [4.5, 2.5, 6, 4]]),
        scores=torch.tensor([0.5, 0.75, 0.25]),
        labels=torch.tensor([0, 1, 1]),
        mask_crops=CroppedMasks.from_dense(masks),
        image_size=(4, 6),
        class_names=("cat", "dog"),
    )


def grey_image() -> np.ndarray:
    return np.full((4, 6, 3), 100, dtype=np.uint8)


def test_masks_are_painted_full_size() -> None:
    masks = scene().masks
    assert masks.shape == (3, 4, 6)
    assert masks.sum(dim=(1, 2)).tolist() == [4, 6, 1]


@pytest.mark.parametrize(
    ("index", "scores"),
    [
        (1, [0.75]),
        (-1, [0.25]),
        (slice(0, 2), [0.5, 0.75]),
        (torch.tensor([True, False, True]), [0.5, 0.25]),
        (torch.tensor([2, 0]), [0.25, 0.5]),
        ([1, 1], [0.75, 0.75]),
        ([], []),
    ],
)
def test_picking_picks_every_field(index: object, scores: list[float]) -> None:
    found = replace(scene(), image=grey_image())
    picked = found[index]  # type: ignore[index]
    rows = [found.scores.tolist().index(score) for score in scores]
    assert picked.scores.tolist() == scores
    assert torch.equal(picked.boxes, found.boxes[rows])
    assert torch.equal(picked.labels, found.labels[rows])
    assert torch.equal(picked.masks, found.masks[rows])
    assert picked.image is found.image


def test_iterating_gives_results_of_length_one() -> None:
    assert [(len(one), one.scores.item()) for one in scene()] == [(1, 0.5), (1, 0.75), (1, 0.25)]


def test_an_index_beyond_the_end_is_refused() -> None:
    with pytest.raises(IndexError, match="there are 3"):
        scene()[3]


def test_above_keeps_scores_at_the_threshold() -> None:
    assert scene().above(0.5).scores.tolist() == [0.5, 0.75]


def test_cat_undoes_splitting() -> None:
    found = scene()
    assert Instances.cat(list(found)) == found
    remembering = replace(found, image=grey_image())
    assert Instances.cat([found, remembering]).image is remembering.image


def test_cat_refuses_nothing_and_other_images() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Instances.cat([])
    with pytest.raises(ValueError, match="same image"):
        Instances.cat([scene(), Instances.empty((4, 7), ("cat", "dog"))])


def test_equality_ignores_the_remembered_image_and_sees_all_else() -> None:
    found = scene()
    assert found == replace(found, image=grey_image())
    assert found != replace(found, scores=found.scores + 0.1)
    assert found != replace(found, boxes=found.boxes + 0.1)
    assert found != replace(found, labels=torch.tensor([1, 1, 1]))
    assert found != replace(found, mask_crops=found.mask_crops[[1, 0, 2]])
    assert found != replace(found, class_names=("cat", "cow"))
    assert found != "found"


def test_repr_is_short() -> None:
    assert repr(replace(scene(), image=grey_image())) == "Instances(3 on 4x6: dog 2, cat 1)"


def test_nothing_found_passes_through_everything(tmp_path: Path) -> None:
    none = Instances.empty((4, 6), ("cat",))
    assert len(none) == 0
    assert none.masks.shape == (0, 4, 6)
    assert none == none[:] == none.above(0.5) == Instances.cat([none, none]).to("cpu")
    assert list(none) == none.to_coco(7) == []
    assert repr(none) == "Instances(0 on 4x6)"
    assert len(none.to_supervision()) == 0
    none.save(tmp_path / "none.png", grey_image())
    none.save_masks(tmp_path / "masks.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "none.png")), grey_image())
    assert not np.asarray(Image.open(tmp_path / "masks.png")).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"boxes": torch.zeros(2, 4)},
            r"boxes are .* 3 masks need torch.float32 of shape \(3, 4\)",
        ),
        ({"boxes": torch.zeros(3, 4, dtype=torch.float64)}, "boxes are torch.float64"),
        ({"scores": torch.zeros(3, 1)}, "scores are"),
        ({"labels": torch.zeros(3)}, "labels are torch.float32"),
        ({"labels": torch.tensor([0, 2, 1])}, "run from 0 to 2, but there are 2 class names"),
        ({"labels": torch.tensor([0, -1, 1])}, "run from -1"),
        ({"scores": torch.tensor([0.5, float("nan"), 0.1])}, "NaN"),
        ({"boxes": torch.full((3, 4), float("inf"))}, "infinity"),
        ({"image_size": (5, 6)}, r"masks belong to an image of \(4, 6\)"),
        ({"image": np.zeros((4, 7, 3), dtype=np.uint8)}, r"uint8 \(4, 6, 3\)"),
        ({"image": np.zeros((4, 6, 3))}, "float64"),
        ({"boxes": torch.zeros(3, 4, device="meta")}, "move all to one device"),
    ],
)
def test_fields_that_do_not_fit_are_refused(changes: Mapping[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(scene(), **changes)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
def test_coco_results_say_the_same_as_the_fields() -> None:
    found = scene()
    results = found.to_coco(image_id=42)
    assert [r["image_id"] for r in results] == [42] * 3
    assert [r["category_id"] for r in results] == [1, 2, 2]
    assert [r["score"] for r in results] == [0.5, 0.75, 0.25]
    assert [r["bbox"] for r in results] == [[1, 1, 2, 2], [2, 0, 3, 2], [4.5, 2.5, 1.5, 1.5]]
    decoded = coco_mask.decode([json.loads(json.dumps(r["segmentation"])) for r in results])
    assert np.array_equal(decoded.transpose(2, 0, 1).astype(bool), found.masks.numpy())


def test_coco_results_take_the_annotation_files_category_ids() -> None:
    assert [r["category_id"] for r in scene().to_coco(1, category_ids=[17, 90])] == [17, 90, 90]
    with pytest.raises(ValueError, match="3 category ids for 2 classes"):
        scene().to_coco(1, category_ids=[1, 2, 3])


def test_supervision_gets_every_field() -> None:
    pytest.importorskip("supervision")
    found = scene()
    detections = found.to_supervision()
    assert np.array_equal(detections.xyxy, found.boxes.numpy())
    assert np.array_equal(np.asarray(detections.mask), found.masks.numpy())
    assert np.array_equal(detections.confidence, found.scores.numpy())
    assert detections.class_id.tolist() == [0, 1, 1]
    assert detections.data["class_name"].tolist() == ["cat", "dog", "dog"]


def test_without_supervision_the_error_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def refuse(
        name: str,
        globals_: object = None,
        locals_: object = None,
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> object:
        if name == "supervision":
            raise ImportError(name)
        return real_import(name, globals_, locals_, fromlist, level)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"pip install diffinst\[supervision\]"):
        scene().to_supervision()


def test_save_draws_over_the_remembered_or_the_given_image(tmp_path: Path) -> None:
    replace(scene(), image=grey_image()).save(tmp_path / "remembered.png")
    scene().save(tmp_path / "given.png", grey_image())
    saved = np.asarray(Image.open(tmp_path / "remembered.png"))
    assert np.array_equal(saved, np.asarray(Image.open(tmp_path / "given.png")))
    assert saved.shape == (4, 6, 3)
    assert not np.array_equal(saved, grey_image())


@pytest.mark.parametrize(
    ("name", "kind"), [("a.png", "PNG"), ("a.JPG", "JPEG"), ("a.jpeg", "JPEG")]
)
def test_the_suffix_decides_the_file_type(tmp_path: Path, name: str, kind: str) -> None:
    scene().save(tmp_path / name, grey_image())
    with Image.open(tmp_path / name) as saved:
        assert saved.format == kind
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_save_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"save\(path, image=image\)"):
        scene().save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"\.png, \.jpg, \.jpeg"):
        scene().save(tmp_path / "a.tiff", grey_image())
    with pytest.raises(ValueError, match=r"\.png"):
        scene().save_masks(tmp_path / "a.jpg")
    assert list(tmp_path.iterdir()) == []


def test_label_map_numbers_instances_by_score(tmp_path: Path) -> None:
    # Scores 0.5, 0.75, 0.25 are ranks 2, 1, 3; rank 1 keeps the shared pixel (1, 2).
    scene().save_masks(tmp_path / "masks.png")
    image = Image.open(tmp_path / "masks.png")
    assert image.mode == "I;16"
    assert np.asarray(image).tolist() == [
        [0, 0, 1, 1, 1, 0],
        [0, 2, 1, 1, 1, 0],
        [0, 2, 2, 0, 0, 0],
        [0, 0, 0, 0, 0, 3],
    ]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_result_on_another_device_is_the_same_result(tmp_path: Path) -> None:
    found = scene().to("cuda")
    assert found.boxes.is_cuda
    assert found == scene()
    assert found.above(0.5) == scene().above(0.5)
    assert found.to_coco(1) == scene().to_coco(1)
    assert len(found.to_supervision()) == 3
    found.save(tmp_path / "a.png", grey_image())
    found.save_masks(tmp_path / "b.png")
