"""Boxes near objects: exact at reach 0, on the object at reach 1, and drawn as the fields say."""

from __future__ import annotations

import math
from collections import Counter

import torch
from torch import Tensor

from diffinst.config import StartsConfig
from diffinst.diffusion.near import TRIES, StartDraw, boxes_near

BOXES = torch.tensor([[10.0, 20, 30, 60], [40.0, 40, 50, 50]])


def masks() -> Tensor:
    """The first object fills the lower half of its box only; the second none of its pixels."""
    result = torch.zeros(2, 64, 64, dtype=torch.bool)
    result[0, 40:60, 10:30] = True
    return result


def draw(reach: float, point: tuple[float, float], side: float = 0.0) -> StartDraw:
    return StartDraw(
        "near",
        strength=0.5,
        chosen=torch.tensor([0.2, 0.7]),
        reach=torch.full((2,), reach),
        points=torch.tensor(point).expand(2, TRIES, 2),
        sides=torch.full((2, 2), side),
    )


def test_at_reach_0_boxes_are_the_objects() -> None:
    assert torch.equal(boxes_near(BOXES, masks(), draw(0.0, (0.9, 0.9), side=1.0)), BOXES)


def test_by_hand() -> None:
    # the point at (0.5, 0.75) of the first box is (20, 50), on its mask; its centre is (20, 40)
    moved = boxes_near(BOXES, masks(), draw(1.0, (0.5, 0.75)))
    assert moved[0].tolist() == [10, 30, 30, 70]
    assert moved[1].tolist() == BOXES[1].tolist()  # no point on its mask: it stays
    halfway = boxes_near(BOXES, masks(), draw(0.5, (0.5, 0.75)))
    assert halfway[0].tolist() == [10, 25, 30, 65]
    off = boxes_near(BOXES, masks(), draw(1.0, (0.5, 0.25)))  # (20, 30) is off the mask
    assert off[0].tolist() == BOXES[0].tolist()
    wide = boxes_near(BOXES, masks(), draw(1.0, (0.5, 0.75), side=1.0))
    sides = wide[0, 2:] - wide[0, :2]
    torch.testing.assert_close(sides, torch.tensor([20.0, 40]) * math.exp(0.7))


def test_which_objects_get_a_box() -> None:
    assert draw(0.0, (0.0, 0.0)).has_box(2).tolist() == [True, False]
    assert draw(0.0, (0.0, 0.0)).has_box(1).tolist() == [True]


def test_no_objects() -> None:
    drawn = StartDraw.draw(0, StartsConfig(near=1.0))
    assert drawn is not None
    assert boxes_near(BOXES[:0], masks()[:0], drawn).shape == (0, 4)


def test_kinds_come_as_often_as_their_fields_say() -> None:
    generator = torch.Generator().manual_seed(0)
    config = StartsConfig(prior=0.4, own=0.3, near=0.2)
    drawn = [StartDraw.draw(1, config, generator) for _ in range(2000)]
    kinds = Counter(d.kind if d else "paper" for d in drawn)
    fractions = {kind: count / 2000 for kind, count in kinds.items()}
    for kind, fraction in {"prior": 0.4, "own": 0.3, "near": 0.2, "paper": 0.1}.items():
        assert abs(fractions[kind] - fraction) < 0.04


def test_the_paper_draws_nothing_more() -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert StartDraw.draw(3, StartsConfig(), generator) is None
    assert torch.equal(generator.get_state(), before)
