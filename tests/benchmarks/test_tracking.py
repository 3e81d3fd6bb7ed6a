"""Are delays, survivals and moved windows of the tracking benchmark counted right?"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import torch

from diffinst.evaluation.tracking import TrackedMask
from diffinst.results.crops import CroppedMasks


@pytest.fixture(scope="module")
def tracking(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("tracking")


def frame(*squares: tuple[int, int]) -> list[TrackedMask]:
    """Ids and left sides of 10 x 10 squares."""
    masks = torch.zeros(len(squares), 10, 100, dtype=torch.bool)
    for mask, (_, x) in zip(masks, squares, strict=True):
        mask[:, x : x + 10] = True
    rles = CroppedMasks.from_dense(masks).to_rle()
    return [TrackedMask(n, rle) for (n, _), rle in zip(squares, rles, strict=True)]


def test_delays_are_of_objects_that_appear_later(tracking: ModuleType) -> None:
    """Object 1 is there from the start; 2 is found a frame late, 3 at once, 4 never."""
    truth = [frame((1, 0)), frame((1, 0), (2, 20)), frame((2, 20), (3, 40), (4, 60))]
    tracks = [frame(), frame((8, 0)), frame((9, 20), (7, 40))]
    assert tracking.delays(truth, tracks) == [1, 0, None]


def test_what_comes_in_over_the_border_appears_when_half_of_it_is_seen(
    tracking: ModuleType,
) -> None:
    """A square of 10 whose first 3, then 6 columns are seen; found one frame later."""
    truth = [[], frame((1, 97)), frame((1, 94)), frame((1, 90))]
    assert tracking.delays(truth, [[], [], [], frame((5, 90))]) == [1]
    assert tracking.delays(truth, [[], frame((5, 97)), [], []]) == [0]


def test_survivors_have_the_id_that_they_had(tracking: ModuleType) -> None:
    before = tracking.matches(frame((1, 0), (2, 20), (3, 40)), frame((7, 0), (8, 21)))
    after = tracking.matches(frame((1, 0), (2, 20)), frame((7, 0), (9, 20)))
    assert (before, after) == ({1: 7, 2: 8}, {1: 7, 2: 9})
    assert tracking.survived(before, after) == (1, 2)


def test_a_window_stays_inside_and_keeps_its_pace(tracking: ModuleType) -> None:
    places = np.array(tracking.corners((520, 696), 200))
    room = np.array([520, 696]) - tracking.WINDOW
    assert (places >= 0).all() and (places <= room).all() and (places.max(0) > 0.8 * room).all()
    moved = np.hypot(*np.diff(places, axis=0).T)
    assert (moved <= tracking.PACE + 2).all() and np.median(moved) > tracking.PACE - 2
