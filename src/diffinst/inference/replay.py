"""Work of fixed shapes, recorded once and replayed: one launch instead of a thousand (CUDA graphs).

At one picture a GPU waits for the host, which starts its kernels one by one. A recording starts
them all at once. It holds the memory it ran in, so only the latest few are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

Tensors: TypeAlias = tuple[Tensor, ...]
Function: TypeAlias = Callable[..., Tensors]
Record: TypeAlias = Callable[[Function, Tensors], Callable[[], Tensors]]
"""From a function and the tensors that it will always read, to what runs it again on their
present values; what it returns is overwritten by the next run."""

KEPT = 8  # recordings
WARM_UP = 3  # runs before one is recorded: libraries choose their kernels in the first


@dataclass(frozen=True)
class _Tape:
    inputs: Tensors
    replay: Callable[[], Tensors]


class Tapes:
    """The latest recordings.

    Args:
        record: How to record.
        kept: How many are kept; the one not used for the longest time goes.
    """

    def __init__(self, record: Record, kept: int = KEPT) -> None:
        self.record = record
        self.kept = kept
        self._tapes: dict[Hashable, _Tape] = {}

    def __len__(self) -> int:
        """Number of recordings."""
        return len(self._tapes)

    def run(self, name: Hashable, function: Function, inputs: Tensors) -> Tensors:
        """What the function gives, by the recording of its name and the inputs' shapes.

        Args:
            name: Functions of one name do the same.
            function: Runs without a question to the device, in fixed shapes.
            inputs: What it reads, apart from what never changes.
        """
        key = (name, *((tuple(x.shape), x.dtype) for x in inputs))
        tape = self._tapes.pop(key, None)
        if tape is None:
            own = tuple(x.clone() for x in inputs)
            tape = _Tape(own, self.record(function, own))
            while len(self._tapes) >= self.kept:
                del self._tapes[next(iter(self._tapes))]
        self._tapes[key] = tape
        for mine, given in zip(tape.inputs, inputs, strict=True):
            mine.copy_(given, non_blocking=True)
        return tuple(x.clone() for x in tape.replay())


def record_on_gpu(function: Function, inputs: Tensors) -> Callable[[], Tensors]:
    """A CUDA graph; see `Record`."""
    device = inputs[0].device
    with torch.cuda.device(device):
        here = torch.cuda.current_stream(device)
        aside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                function(*inputs)
        here.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = function(*inputs)

    def replay() -> Tensors:
        graph.replay()
        return outputs

    return replay
