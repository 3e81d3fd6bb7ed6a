"""Are masks that are made late the masks that are made at once?"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffinst.inference.late_masks import LateInstances
from diffinst.inference.masks import crop_masks
from diffinst.inference.predictor import DiffusionInst
from diffinst.inference.select import Detections


@pytest.fixture(scope="module")
def late() -> LateInstances:
    """Three detections with random filters on a random image."""
    model = DiffusionInst.from_preset("tiny")
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    image = model.encode(pixels)
    boxes = torch.tensor([[4.0, 4, 30, 30], [20, 10, 60, 40], [0, 0, 64, 48]])
    size = model.network.mask_head.layout.size
    kept = Detections(
        boxes=boxes,
        output_boxes=boxes,
        scores=torch.tensor([0.9, 0.8, 0.7]),
        labels=torch.tensor([0, 1, 0]),
        filters=torch.randn(3, size, generator=torch.Generator().manual_seed(0)),
        proposals=torch.arange(3),
    )
    return LateInstances(kept, image.encoded, image.size, model.network, 0.5)


def test_what_is_picked_is_what_all_of_them_at_once_give(late: LateInstances) -> None:
    head = late.network.mask_head
    at_once = crop_masks(late.kept, late.encoded, 0, late.size, head, 0.5)
    found = late[[2, 0, 2]]
    assert found.mask_crops == at_once[[2, 0, 2]]
    assert found.scores.tolist() == pytest.approx([0.7, 0.9, 0.7])
    assert found.labels.tolist() == [0, 0, 0]
    assert found.boxes.tolist() == late.kept.boxes[[2, 0, 2]].tolist()


def test_a_mask_is_made_once(late: LateInstances) -> None:
    first = late[[1]].mask_crops.patches[0]
    assert late[range(3)].mask_crops.patches[1] is first


def test_none_may_be_picked(late: LateInstances) -> None:
    assert len(late) == 3
    assert len(late[[]]) == 0 and late[[]].image_size == (48, 64)
