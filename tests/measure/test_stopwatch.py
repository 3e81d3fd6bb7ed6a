"""Is every second of a prediction counted once, under the right name?"""

from __future__ import annotations

import pytest
import torch

from diffinst import DiffusionInst
from diffinst.measure.stopwatch import ENCODER_PARTS, STAGE, STAGE_PARTS, Stopwatch
from diffinst.structures import ImageBatch


class Clocked(Stopwatch):
    """A stopwatch whose clock is set by hand."""

    time = 0.0

    def now(self) -> float:
        return self.time


def test_a_part_does_not_count_what_the_parts_within_it_count() -> None:
    clock = Clocked(torch.device("cpu"))
    with clock.part("outer"):
        clock.time += 1
        with clock.part("inner"):
            clock.time += 10
            with clock.part("innermost"):
                clock.time += 100
        with clock.part("inner"):
            clock.time += 20
        clock.time += 2
    assert clock.seconds == {"outer": 3, "inner": 30, "innermost": 100}


def test_the_network_is_watched_and_left_as_it_was() -> None:
    network = DiffusionInst.from_preset("tiny").network
    clock = Stopwatch(torch.device("cpu"))
    boxes, t = torch.tensor([[[4.0, 4.0, 40.0, 40.0]]]), torch.tensor([3])

    def run() -> None:
        network.denoise(
            network.encode(ImageBatch(torch.zeros(1, 3, 64, 64), ((64, 64),))), boxes, t
        )

    with torch.no_grad(), clock.watching(network), clock.part("all else"):
        run()
    names = {*ENCODER_PARTS.values(), *STAGE_PARTS.values(), STAGE, "all else"}
    assert clock.seconds.keys() == names and min(clock.seconds.values()) > 0
    before = dict(clock.seconds)
    run()
    assert clock.seconds == before


def test_hooks_are_removed_after_an_error() -> None:
    network = DiffusionInst.from_preset("tiny").network
    with pytest.raises(ZeroDivisionError), Stopwatch(torch.device("cpu")).watching(network):
        raise ZeroDivisionError
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
