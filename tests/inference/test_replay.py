"""Is work recorded once a shape, and is what is replayed the caller's own?"""

from __future__ import annotations

from collections.abc import Callable

import torch

from diffinst.inference.replay import Function, Tapes, Tensors


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
    first, second = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    (a,) = tapes.run("double", double, (first,))
    (b,) = tapes.run("double", double, (second,))
    assert a.tolist() == [2, 4] and b.tolist() == [6, 8]  # the first is not overwritten
    assert first.tolist() == [1, 2] and record.count == 1
    tapes.run("double", double, (torch.zeros(3),))
    tapes.run("double", double, (first.double(),))
    tapes.run("other name", double, (first,))
    assert record.count == len(tapes) == 4


def test_the_one_not_used_for_longest_is_forgotten() -> None:
    record = InPlace()
    tapes = Tapes(record, kept=2)
    for length in (1, 2, 1, 3, 1):  # 3 takes the place of 2
        tapes.run("double", double, (torch.ones(length),))
    assert (record.count, len(tapes)) == (3, 2)
    tapes.run("double", double, (torch.ones(2),))
    assert record.count == 4
