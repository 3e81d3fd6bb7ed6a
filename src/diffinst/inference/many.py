"""Many images: read ahead, batched by padded size, predicted, handed on in order.

A bounded number of images is in memory, however many there are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from diffinst.acceleration.feed import fed
from diffinst.config import Options, Reading
from diffinst.inference.runner import Runner
from diffinst.io.images import ImageReadError, ImageSource, ImageTooLarge, read
from diffinst.io.out_of_memory import OutOfMemory
from diffinst.results.instances import Instances

READERS = 2  # threads
Source = TypeVar("Source", bound=ImageSource)
Read = Callable[[Source, Reading], "tuple[NDArray[np.uint8], tuple[str, ...]]"]
"""Reads a source as `io.images.read` does, which it stands in for: pixels, and what is to be told
of them. May raise `ImageReadError` alone."""
SeedOf = Callable[[Source], int]


@dataclass(frozen=True)
class _Read(Generic[Source]):
    """A source that was read; an error that ended the sources has none."""

    place: int
    source: Source | None
    pixels: NDArray[np.uint8] | None
    error: Exception | None = None
    notes: tuple[str, ...] = ()


def predict_each(
    runner: Runner,
    sources: Iterable[Source],
    options: Options,
    reading: Reading,
    note: Callable[[str], None],
    *,
    seed_of: SeedOf[Source] | None = None,
    read_by: Read[Source] | None = None,
) -> Iterator[tuple[Source, NDArray[np.uint8] | None, Instances | ImageReadError]]:
    """Each source, its pixels, and its instances or why it cannot be read; in order.

    An image that does not fit in memory, alone, counts as one that cannot be read.

    Args:
        runner: Predicts.
        sources: Asked for one after the other, about three batches ahead of what is handed on. An
            error that they raise comes through when all before it are handed on.
        options: Of all.
        reading: Of all.
        note: Gets what is to be told of an image, just before the image is handed on.
        seed_of: The seed of each image's noise; None: that of the options for all.
        read_by: How a source is read, in a thread; None: by `io.images.read`.
    """
    ahead = runner.at_once + READERS
    with closing(_read_ahead(sources, reading, ahead, read_by or read)) as coming:
        batches = _batches(coming, runner)
        ready: dict[int, tuple[_Read[Source], Instances | ImageReadError | None]] = {}
        following = 0
        for batch, found in _predicted(runner, batches, options, seed_of):
            ready.update({item.place: (item, one) for item, one in zip(batch, found, strict=True)})
            while following in ready:
                item, instances = ready.pop(following)
                following += 1
                if item.source is None:
                    assert item.error is not None
                    raise item.error
                answer = item.error if isinstance(item.error, ImageReadError) else instances
                assert answer is not None
                for text in item.notes:
                    note(text)
                yield item.source, item.pixels, answer


def _read_ahead(
    sources: Iterable[Source], reading: Reading, ahead: int, read_by: Read[Source]
) -> Generator[_Read[Source], None, None]:
    """The sources in order, those to come being read in threads meanwhile."""
    coming: deque[tuple[Source, Future[tuple[NDArray[np.uint8], tuple[str, ...]]]]] = deque()
    failure: Exception | None = None
    feed, place = iter(sources), 0
    threads = ThreadPoolExecutor(READERS, "read")
    try:
        while True:
            while failure is None and len(coming) < ahead:
                try:
                    source = next(feed)
                except StopIteration:
                    break
                except Exception as error:  # of the caller's own iterator
                    failure = error
                else:
                    coming.append((source, threads.submit(read_by, source, reading)))
            if not coming:
                break
            source, future = coming.popleft()
            try:
                pixels, notes = future.result()
            except ImageReadError as error:
                yield _Read(place, source, None, error)
            else:
                yield _Read(place, source, pixels, notes=notes)
            place += 1
        if failure is not None:
            yield _Read(place, None, None, failure)
    finally:
        threads.shutdown(cancel_futures=True)


def _batches(read: Iterable[_Read[Source]], runner: Runner) -> Iterator[list[_Read[Source]]]:
    """Images of one padded size together, found among twice as many as go through at once."""
    waiting: list[_Read[Source]] = []

    def kind(item: _Read[Source]) -> tuple[int, int] | None:
        if item.pixels is None:
            return None
        return runner.padded((item.pixels.shape[0], item.pixels.shape[1]))

    def take() -> list[_Read[Source]]:
        wanted = kind(waiting[0])
        most = runner.at_once if wanted is None else runner.at_once_of(wanted)
        batch = [item for item in waiting if kind(item) == wanted][:most]
        taken = {item.place for item in batch}
        waiting[:] = [item for item in waiting if item.place not in taken]
        return batch

    for item in read:
        waiting.append(item)
        if len(waiting) >= 2 * runner.at_once:
            yield take()
    while waiting:
        yield take()


def _predicted(
    runner: Runner,
    batches: Iterable[list[_Read[Source]]],
    options: Options,
    seed_of: SeedOf[Source] | None,
) -> Iterator[tuple[list[_Read[Source]], Sequence[Instances | ImageReadError | None]]]:
    """Batches with their results; the next one travels to the device meanwhile."""
    for batch, tensors in fed(batches, _pixels, runner.device):
        found: Sequence[Instances | ImageReadError | None] = [None] * len(batch)
        if tensors:
            sources = [item.source for item in batch if item.source is not None]
            seeds = [options.seed if seed_of is None else seed_of(one) for one in sources]
            found = _as_it_fits(runner, tensors, sources, seeds, options)
        yield batch, found


def _as_it_fits(
    runner: Runner,
    tensors: list[Tensor],
    sources: Sequence[object],
    seeds: Sequence[int],
    options: Options,
) -> list[Instances | ImageReadError]:
    """All together, or half of them at a time where memory runs out."""
    try:
        return [*runner.predict(tensors, options, seeds)]
    except OutOfMemory as error:
        if len(tensors) == 1:
            (source,) = sources
            name = f"{source}: " if isinstance(source, str | Path) else ""
            return [ImageTooLarge(f"{name}{error}")]
    half = len(tensors) // 2  # behind the handler, which holds on to what was allocated
    first = _as_it_fits(runner, tensors[:half], sources[:half], seeds[:half], options)
    return first + _as_it_fits(runner, tensors[half:], sources[half:], seeds[half:], options)


def _pixels(batch: list[_Read[Source]]) -> list[NDArray[np.uint8]]:
    return [item.pixels for item in batch if item.pixels is not None]
