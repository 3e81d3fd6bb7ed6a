"""A result keeps its fields together, is picked from, joined and compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scenes import scene

from diffinst.results.crops import CroppedMasks
from diffinst.results.instances import Instances
from diffinst.results.meta import Meta


def grey_image() -> np.ndarray:
    return np.full((4, 6, 3), 100, dtype=np.uint8)


def test_masks_are_built_full_size() -> None:
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
    found = replace(scene(), image=grey_image(), path=Path("a.png"))
    picked = found[index]  # type: ignore[index]
    rows = [found.scores.tolist().index(score) for score in scores]
    assert picked.scores.tolist() == scores
    assert torch.equal(picked.boxes, found.boxes[rows])
    assert torch.equal(picked.labels, found.labels[rows])
    assert torch.equal(picked.masks, found.masks[rows])
    assert picked.image is found.image
    assert picked.path is found.path


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
    assert Instances.cat([found, replace(found, path=Path("a.png"))]).path == Path("a.png")


def test_cat_refuses_nothing_and_other_images() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Instances.cat([])
    with pytest.raises(ValueError, match="same image"):
        Instances.cat([scene(), Instances.empty((4, 7), ("cat", "dog"))])


def test_equality_ignores_image_and_path_and_sees_all_else() -> None:
    found = scene()
    assert found == replace(found, image=grey_image(), path=Path("a.png"))
    assert found != replace(found, scores=found.scores + 0.1)
    assert found != replace(found, boxes=found.boxes + 0.1)
    assert found != replace(found, labels=torch.tensor([1, 1, 1]))
    assert found != replace(found, mask_crops=found.mask_crops[[1, 0, 2]])
    assert found != replace(found, class_names=("cat", "cow"))
    assert found != "found"


def test_repr_is_short() -> None:
    assert repr(replace(scene(), image=grey_image())) == "Instances(3 on 4x6: dog 2, cat 1)"


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


def test_tight_boxes_enclose_the_masks_and_empty_masks_keep_theirs() -> None:
    dense = scene().masks
    dense[2] = False
    found = replace(scene(), mask_crops=CroppedMasks.from_dense(dense))
    shifted = replace(found, boxes=found.boxes + 1)
    tight = shifted.tight()
    assert tight.boxes.tolist() == [[1, 1, 3, 3], [2, 0, 5, 2], [5.5, 3.5, 7, 5]]
    assert shifted.boxes.tolist() == (found.boxes + 1).tolist()
    assert replace(tight, boxes=found.boxes) == found


def test_meta_is_carried_but_does_not_tell_results_apart() -> None:
    meta = Meta(steps=2, proposals=300, kind="search", seed=0, seconds=0.3, asked=0.3)
    found = replace(scene(), meta=meta)
    assert found == scene() and found[0].meta == found.to("cpu").meta == meta
    assert Instances.cat([found[0], found[1]]).meta == meta
    other = replace(found, meta=replace(meta, seed=1))
    assert Instances.cat([found, other]).meta is None
