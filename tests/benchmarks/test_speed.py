"""Does the table of the speed benchmark say what its numbers say?"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch

from diffinst.config import Config


@pytest.fixture(scope="module")
def speed(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("speed")


def test_ratios_are_taken_within_a_round(speed: ModuleType) -> None:
    content = {
        "kind": "cpu",
        "machine": {"device": "abacus", "threads": 2, "torch": "9"},
        # the machine is twice as slow in the second round, three times in the third
        "prediction": {
            speed.RIVAL: [2.0, 4.0, 6.0],
            "diffinst 1 step bf16": [1.0, 2.0, 4.5],
            "diffinst 4 steps fp32": [3.0, 6.0, 9.0],
            speed.SWIFT: [0.1, 0.125, 0.2],
        },
        "peak_gib": {
            speed.RIVAL: 2.0,
            "diffinst 1 step bf16": 1.0,
            "diffinst 4 steps fp32": 1.5,
        },
    }
    text = speed.table(content)
    assert "abacus, 2 threads, torch 9" in text
    assert "| Mask R-CNN fp32 | 4 | 1.00 | 1.00-1.00 |  | 2.00 | 1.00 |  |" in text
    assert "| diffinst 1 step bf16 | 2 | 0.50 | 0.50-0.75 | <= 0.55 | 1.00 | 0.50 |  |" in text
    assert "| 6 | 1.50 | 1.50-1.50 | <= 1.8 | 1.50 | 0.75 | <= 1 |" in text
    assert "8.0 images/s" in text and "training" not in text


def test_training_has_its_own_times_and_peaks(speed: ModuleType) -> None:
    name, kind = "diffinst training bf16", "training, rival keeps freed memory too"
    content = {
        "kind": "cpu",
        "machine": {"device": "abacus", "threads": 2, "torch": "9"},
        "prediction": {speed.RIVAL: [2.0], speed.SWIFT: [0.1]},
        "peak_gib": {},
        kind: {speed.RIVAL: [10.0, 12.0], name: [5.0, 3.0]},
        f"peak_gib, {kind}": {speed.RIVAL: 4.0, name: 6.0},
    }
    text = speed.table(content)
    assert f"| {kind} | s |" in text and "| training | s |" not in text
    assert f"| {name} | 4 | 0.38 | 0.25-0.50 | <= 0.6 | 6.00 | 1.50 |  |" in text


def test_what_bf16_gains_in_training_is_said(speed: ModuleType) -> None:
    exact, rounded = speed.TRAINING
    content = {
        "kind": "cuda",
        "machine": {"device": "abacus", "threads": 2, "torch": "9"},
        "prediction": {speed.RIVAL: [2.0], speed.SWIFT: [0.1]},
        "peak_gib": {},
        "training": {speed.RIVAL: [1.0, 1.0], exact: [9.0, 6.0], rounded: [4.0, 4.0]},
        "peak_gib, training": {speed.RIVAL: 1.0},
    }
    line = "- diffinst training: bf16 is 1.88 times as fast as fp32 (target: 2)"
    assert line in speed.table(content).splitlines()


def test_everyone_has_as_many_turns(speed: ModuleType) -> None:
    order: list[str] = []
    runs = {name: (lambda name=name: order.append(name)) for name in "ab"}
    seconds = speed.race(runs, 2, torch.device("cpu"))
    assert order == list("ababab") and [len(s) for s in seconds.values()] == [2, 2]


def test_objects_lie_inside_the_image_and_have_masks(speed: ModuleType) -> None:
    found = speed.objects(7)
    height, width = speed.SIZE
    assert len(found) == 7 and (found.boxes >= 0).all()
    assert (found.boxes[:, 2] <= width).all() and (found.boxes[:, 3] <= height).all()
    area = (found.boxes[:, 2:] - found.boxes[:, :2]).prod(1)
    filled = found.masks.flatten(1).sum(1) / area  # an ellipse fills pi / 4 of its box
    torch.testing.assert_close(filled, torch.full((7,), torch.pi / 4), rtol=0.05, atol=0)


def test_both_sides_learn_the_same_stages_of_the_backbone(speed: ModuleType) -> None:
    rival = speed.build_rival(torch.device("cpu"))
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in rival.modules())
    body = rival.backbone.body
    learning = [any(p.requires_grad for p in body[f"layer{i}"].parameters()) for i in (1, 2, 3, 4)]
    assert learning == [False, True, True, True] and not body["conv1"].weight.requires_grad
    assert Config.from_preset("r50-coco").model.backbone.freeze_levels == 1
