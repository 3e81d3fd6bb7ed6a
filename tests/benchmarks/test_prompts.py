"""Are starts near their objects, and is an overlap that of the start's own object?"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest


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
    masks[0, 5:8, 12:15] = True  # the second one has no pixel
    boxes = prompts.clicks(masks, 4.0, np.random.default_rng(0))
    x, y = (boxes[0, :2] + boxes[0, 2:]) / 2
    assert masks[0, int(y), int(x)] and (boxes[0, 2:] - boxes[0, :2]).tolist() == [4, 4]
    assert np.isfinite(boxes).all()


def test_each_answer_is_compared_with_its_own_object(prompts: ModuleType) -> None:
    masks = np.zeros((2, 4, 4), bool)
    masks[0, :2], masks[1, 2:] = True, True
    assert prompts.overlaps(masks[::-1], masks) == [0, 0]
    assert prompts.overlaps(masks, masks) == [1, 1]
