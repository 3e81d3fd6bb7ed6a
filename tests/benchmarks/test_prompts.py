"""Are starts near their objects, and is an overlap that of the start's own object?"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from diffinst.results.crops import CroppedMasks
from diffinst.results.instances import Instances


def found(masks: NDArray[np.bool_]) -> Instances:
    crops = CroppedMasks.from_dense(torch.from_numpy(masks.copy()))
    count = len(masks)
    labels = torch.zeros(count, dtype=torch.int64)
    return Instances(crops.tight_boxes(), torch.ones(count), labels, crops, (4, 4), ("a",))


@pytest.fixture(scope="module")
def prompts(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("prompts")


def test_boxes_are_off_by_a_fraction_of_their_size(prompts: ModuleType) -> None:
    boxes = np.array([[10.0, 20, 30, 60]] * 500, np.float32)
    off = prompts.boxes_off(boxes, 0.3, np.random.default_rng(0))
    centre, size = (off[:, :2] + off[:, 2:]) / 2, off[:, 2:] - off[:, :2]
    assert (np.abs(centre - [20, 40]) <= [6, 12.001]).all()
    assert (np.abs(size / [20, 40] - 1) <= 0.3001).all()
    assert np.allclose(prompts.boxes_off(boxes, 0.0, np.random.default_rng(0)), boxes)


def test_clicks_lie_on_their_masks(prompts: ModuleType) -> None:
    masks = np.zeros((2, 20, 20), bool)
    masks[0, 5:8, 12:15] = masks[1, 19, 0] = True
    (x, y), last = prompts.clicks(masks, np.random.default_rng(0))
    assert masks[0, int(y), int(x)] and last.tolist() == [0.5, 19.5]


def test_each_answer_is_compared_with_its_own_object(prompts: ModuleType) -> None:
    masks = np.zeros((2, 4, 4), bool)
    masks[0, :2], masks[1, 2:] = True, True
    assert prompts.overlaps(found(masks), masks).tolist() == [[1, 0], [0, 1]]
    assert prompts.overlaps(found(masks[:0]), masks).shape == (0, 2)


def test_two_answers_on_one_object_are_counted(prompts: ModuleType) -> None:
    masks = np.zeros((2, 4, 4), bool)
    masks[0, :2], masks[1, 2:] = True, True
    assert prompts.doubles(found(masks), masks) == 0
    assert prompts.doubles(found(masks[[0, 0, 1, 0]]), masks) == 2
