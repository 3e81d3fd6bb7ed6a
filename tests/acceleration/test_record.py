"""Is work recorded once a shape, and is what is replayed the caller's own?"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from diffinst.acceleration.record import Function, Tapes, Tensors


class InPlace:
    """Records as a GPU does: the same memory is read and written at every run."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, function: Function, inputs: Tensors) -> Callable[[], Tensors]:
        self.count += 1
        outputs = tuple(x.clone() for x in function(*inputs))

        def replay() -> Tensors:
            for kept, new in zip(outputs, function(*inputs), strict=True):
                kept.copy_(new)
            return outputs

        return replay


def double(x: torch.Tensor) -> Tensors:
    return (2 * x,)


def test_one_recording_a_shape_serves_any_values() -> None:
    record = InPlace()
    tapes = Tapes(record)
    values = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]), torch.tensor([5.0, 6.0])]
    found = [tapes.run("double", double, (x,))[0] for x in values]
    assert [x.tolist() for x in found] == [[2, 4], [6, 8], [10, 12]]  # nothing is overwritten
    assert values[0].tolist() == [1, 2] and record.count == 1


def test_what_comes_once_is_not_recorded() -> None:
    record = InPlace()
    tapes = Tapes(record)
    x = torch.ones(2)
    calls = [("double", x), ("double", torch.ones(3)), ("double", x.double()), ("other name", x)]
    for name, given in calls:
        tapes.run(name, double, (given,))
    with torch.autocast("cpu"):
        tapes.run("double", double, (x,))
    assert record.count == 0
    for name, given in calls:
        tapes.run(name, double, (given,))
    assert record.count == len(tapes) == 4


def test_the_one_not_used_for_longest_is_forgotten() -> None:
    record = InPlace()
    tapes = Tapes(record, kept=2)
    for length in (1, 1, 2, 2, 1, 3, 3, 1):  # 3 takes the place of 2
        tapes.run("double", double, (torch.ones(length),))
    assert (record.count, len(tapes)) == (3, 2)
    tapes.run("double", double, (torch.ones(2),))
    assert record.count == 3  # as if it had never come
    tapes.run("double", double, (torch.ones(2),))
    assert record.count == 4
    tapes.clear()
    assert len(tapes) == 0


def test_room_is_made_before_a_recording() -> None:
    tapes = Tapes(InPlace(), kept=1)
    tapes.record = lambda function, inputs: pytest.fail(f"{len(tapes)} kept")
    tapes.run("double", double, (torch.ones(1),))
    with pytest.raises(pytest.fail.Exception, match="0 kept"):
        tapes.run("double", double, (torch.ones(1),))


def test_threads_get_their_own_results() -> None:
    """Each run copies in, replays and copies out with nobody between."""

    class Slow(InPlace):
        def __call__(self, function: Function, inputs: Tensors) -> Callable[[], Tensors]:
            replay = super().__call__(function, inputs)

            def later() -> Tensors:
                time.sleep(0.002)
                return replay()

            return later

    tapes = Tapes(Slow())
    tapes.run("double", double, (torch.zeros(1),))

    def ask(value: int) -> float:
        return float(tapes.run("double", double, (torch.tensor([float(value)]),))[0])

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(ask, range(64))) == [2.0 * value for value in range(64)]
