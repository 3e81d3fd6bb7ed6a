"""What is new after a step, by hand; merging and early stops are tested with the pipeline."""

from __future__ import annotations

import torch

from diffinst.inference.found import adds
from diffinst.structures import Candidates


def candidates(boxes: list[list[float]], scores: list[float], label: int = 0) -> Candidates:
    count = len(boxes)
    return Candidates(
        boxes=torch.tensor([boxes]),
        scores=torch.tensor([scores]),
        labels=torch.full((1, count), label),
        filters=torch.zeros(1, count, 1),
        proposals=torch.arange(count)[None],
    )


def test_what_a_step_adds_by_hand() -> None:
    before = candidates([[0.0, 0, 10, 10], [40, 40, 50, 50]], [0.4, 0.1])
    same = candidates([[0.0, 0, 10, 8]], [0.9])  # IoU 0.8 with a box of 0.4
    assert adds(before, same, score=0.3, overlap=0.5).tolist() == [False]
    assert adds(before, same, score=0.3, overlap=0.9).tolist() == [True]
    unsure = candidates([[40.0, 40, 50, 50]], [0.3])  # known, but from 0.1 only
    assert adds(before, unsure, score=0.3, overlap=0.5).tolist() == [True]
    weak = candidates([[70.0, 70, 80, 80]], [0.29])
    assert adds(before, weak, score=0.3, overlap=0.5).tolist() == [False]
    other = candidates([[0.0, 0, 10, 8]], [0.9], label=1)
    assert adds(before, other, score=0.3, overlap=0.5).tolist() == [True]
