"""Images on their way to the device: the next ones travel to a GPU while it works on these."""

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


def fed(
    batches: Iterable[Item], images: Callable[[Item], Images], device: torch.device
) -> Iterator[tuple[Item, list[Tensor]]]:
    """Each batch with its images (H, W, 3) as (3, H, W) uint8 tensors on a device, in order.

    Args:
        batches: Anything that images belong to.
        images: The images of one.
        device: Where to.
    """
    if device.type != "cuda":  # nothing travels
        for batch in batches:
            yield batch, [torch.from_numpy(i).to(device).permute(2, 0, 1) for i in images(batch)]
        return
    stream = _aside(device)

    def upload(batch: Item) -> tuple[Item, list[Tensor], torch.cuda.Event]:
        with QUIET, torch.cuda.device(device), torch.cuda.stream(stream):
            pinned = [torch.from_numpy(image).pin_memory() for image in images(batch)]
            sent = [tensor.to(device, non_blocking=True) for tensor in pinned]
            return batch, sent, stream.record_event()

    for batch, tensors, arrived in ahead(batches, upload):
        user = torch.cuda.current_stream(device)
        user.wait_event(arrived)
        for tensor in tensors:
            tensor.record_stream(user)  # its memory is not given away while it is read
        yield batch, [tensor.permute(2, 0, 1) for tensor in tensors]


@lru_cache
def _aside(device: torch.device) -> torch.cuda.Stream:
    """One for all calls: free memory is kept for each stream apart."""
    return torch.cuda.Stream(device)


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
