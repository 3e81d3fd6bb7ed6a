"""Work of fixed shapes, recorded once and replayed: one launch instead of a thousand (CUDA graphs).

At one image a GPU waits for the host, which starts its kernels one by one. A recording starts
them all at once.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeAlias
from weakref import WeakSet

import torch
from torch import Tensor

from diffinst.io.out_of_memory import ran_out

Tensors: TypeAlias = tuple[Tensor, ...]
Function: TypeAlias = Callable[..., Tensors]
Record: TypeAlias = Callable[[Function, Tensors], Callable[[], Tensors]]
"""From a function and the tensors that it will always read, to what runs it again on their
present values; what it returns is overwritten by the next run of this or another recording."""

KEPT = 64  # recordings: one for encoding, one for each step
WARM_UP = 3  # runs before one is recorded: libraries choose their kernels in the first
QUIET = threading.Lock()
"""Held while a graph is recorded and while images are sent: neither may see the other's work."""


@dataclass(frozen=True)
class _Tape:
    inputs: Tensors
    replay: Callable[[], Tensors]


class Tapes:
    """The latest recordings; any thread may ask for a run, one at a time gets it.

    What is met for the first time is run as it is: most sizes of a mixed folder come once.

    Args:
        record: How to record.
        kept: How many are kept; the one not used for the longest time goes.
    """

    def __init__(self, record: Record, kept: int = KEPT) -> None:
        self.record = record
        self.kept = kept
        self._met: set[Hashable] = set()
        self._tapes: dict[Hashable, _Tape] = {}
        self._turn = threading.Lock()

    def __len__(self) -> int:
        """Number of recordings."""
        return len(self._tapes)

    def clear(self) -> None:
        """Forget all recordings, and give their memory back."""
        with self._turn:
            self._tapes.clear()
            self._met.clear()

    def run(self, name: Hashable, function: Function, inputs: Tensors) -> Tensors:
        """What the function gives, by the recording of its name and the inputs' shapes.

        Args:
            name: Functions of one name do the same.
            function: Runs without a question to the device, in fixed shapes.
            inputs: What it reads, apart from what never changes.
        """
        kind = inputs[0].device.type
        shapes = tuple((tuple(x.shape), x.dtype) for x in inputs)
        key = (name, torch.is_autocast_enabled(kind), shapes)
        if key not in self._met:
            self._met.add(key)
            return function(*inputs)
        with self._turn:
            tape = self._tapes.pop(key, None)
            if tape is None:
                while len(self._tapes) >= self.kept:
                    oldest = next(iter(self._tapes))
                    del self._tapes[oldest]
                    self._met.discard(oldest)
                own = tuple(x.clone() for x in inputs)
                tape = _Tape(own, self.record(function, own))
            self._tapes[key] = tape
            for mine, given in zip(tape.inputs, inputs, strict=True):
                mine.copy_(given, non_blocking=True)
            return tuple(x.clone() for x in tape.replay())


class Recorded:
    """Runs work by its recordings, or as it is where it cannot be recorded.

    Args:
        record: How to record.
    """

    def __init__(self, record: Record) -> None:
        self.record = record
        self.tapes: Tapes | None = Tapes(record)

    def __call__(self, name: Hashable, work: Function, inputs: Tensors) -> Tensors:
        """What the work gives; see `Tapes.run`."""
        tapes = self.tapes  # another thread may give it up meanwhile
        if tapes is not None:
            try:
                return tapes.run(name, work, inputs)
            except Exception as error:  # of the driver, a compiler or a library, of many kinds
                tapes.clear()
                if not ran_out(error):  # there is no use in another try
                    first = [*str(error).strip().splitlines(), "no reason given"][0]
                    warnings.warn(f"predictions are not recorded: {first}", stacklevel=2)
                    self.tapes = None
        return work(*inputs)


class GpuRecorder:
    """Makes CUDA graphs of one device that share one block of memory; see `Record`.

    They may share it as each run's results are copied before the next run. Memory is shared within
    a stream alone, so all are recorded on the same one.
    """

    def __init__(self) -> None:
        self._aside: torch.cuda.Stream | None = None
        self._pool: Any = None
        self._alive: WeakSet[torch.cuda.CUDAGraph] = WeakSet()

    def __call__(self, function: Function, inputs: Tensors) -> Callable[[], Tensors]:
        """Warm up, record, and return what replays."""
        device = inputs[0].device
        with QUIET, torch.cuda.device(device):
            here = torch.cuda.current_stream(device)
            if self._aside is None:
                self._aside = torch.cuda.Stream(device)
            aside = self._aside
            aside.wait_stream(here)
            with torch.cuda.stream(aside):
                for _ in range(WARM_UP):
                    function(*inputs)
            here.wait_stream(aside)
            if not self._alive:  # a block goes with the last graph in it
                self._pool = torch.cuda.graph_pool_handle()
            graph = torch.cuda.CUDAGraph()
            recording = torch.cuda.graph(
                graph, pool=self._pool, stream=aside, capture_error_mode="thread_local"
            )
            with torch.cuda.stream(here), recording:  # the outer one comes back if recording fails
                outputs = function(*inputs)
            self._alive.add(graph)

        def replay() -> Tensors:
            graph.replay()
            return outputs

        return replay
