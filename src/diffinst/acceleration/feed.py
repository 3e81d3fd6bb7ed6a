"""How do images reach the device? The next ones travel to a GPU while it works on these."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffinst.acceleration.record import QUIET

Item = TypeVar("Item")
Made = TypeVar("Made")
Images = Sequence[NDArray[np.uint8]]


def fed(chunks: Sequence[Images], device: torch.device) -> Iterator[list[Tensor]]:
    """The images (H, W, 3) of each chunk as (3, H, W) uint8 tensors on a device, in order."""
    if device.type != "cuda" or len(chunks) < 2:  # nothing to travel meanwhile
        for chunk in chunks:
            yield [torch.from_numpy(image).to(device).permute(2, 0, 1) for image in chunk]
        return
    stream = _aside(device)

    def upload(chunk: Images) -> tuple[list[Tensor], torch.cuda.Event]:
        with QUIET, torch.cuda.device(device), torch.cuda.stream(stream):
            pinned = [torch.from_numpy(image).pin_memory() for image in chunk]
            sent = [tensor.to(device, non_blocking=True) for tensor in pinned]
            return sent, stream.record_event()

    for tensors, arrived in ahead(chunks, upload):
        user = torch.cuda.current_stream(device)
        user.wait_event(arrived)
        for tensor in tensors:
            tensor.record_stream(user)  # its memory is not given away while it is read
        yield [tensor.permute(2, 0, 1) for tensor in tensors]


@lru_cache
def _aside(device: torch.device) -> torch.cuda.Stream:
    """One for all calls: free memory is kept for each stream apart."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def ahead(items: Iterable[Item], make: Callable[[Item], Made]) -> Iterator[Made]:
    """make(item) of each, in order; the next one is made in a thread while one is in use."""
    with ThreadPoolExecutor(1) as thread:
        coming: Future[Made] | None = None
        for item in items:
            ready, coming = coming, thread.submit(make, item)
            if ready is not None:
                yield ready.result()
        if coming is not None:
            yield coming.result()
