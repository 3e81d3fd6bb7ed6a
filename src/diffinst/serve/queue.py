"""One thread does the work, a bounded number of requests waits; each can be stopped between steps.

A job is an iterator that the thread draws items from; the event loop receives them one by one.
When its reader leaves, the job is given up before the next item.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import queue
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import Generic, TypeAlias, TypeVar

from diffinst.serve.cache import Key
from diffinst.serve.metrics import Metrics
from diffinst.serve.refusal import Refused

T = TypeVar("T")
Make: TypeAlias = Callable[[Callable[[], bool]], Generator[T, None, None]]
LOOK = 0.2  # seconds between two looks whether a client is still there
FIRST_GUESS = 2.0  # seconds that a job takes, before one is done


class _End:
    """After the last item."""


class Job(Generic[T]):
    """A request's work: iterate over it to get what it yields.

    Args:
        make: Gives the items, in the worker's thread; is told how to ask whether the job is given
            up, for where an item takes long.
        loop: That of who reads.
        needs: The encoded image that it will ask for.
    """

    def __init__(self, make: Make[T], loop: asyncio.AbstractEventLoop, needs: Key) -> None:
        self.needs, self._make, self._loop = needs, make, loop
        self._items: asyncio.Queue[T | _End | Exception] = asyncio.Queue()
        self._left = threading.Event()

    def cancel(self) -> None:
        """Give it up: at once while it waits, else before its next item."""
        self._left.set()

    @property
    def left(self) -> bool:
        """Whether it is given up."""
        return self._left.is_set()

    def run(self) -> bool:
        """Do it; whether to its end."""
        try:
            with contextlib.closing(self._make(self._left.is_set)) as items:
                while not self._left.is_set():
                    try:
                        item = next(items)
                    except StopIteration:
                        self._tell(_End())
                        return True
                    self._tell(item)
        except Exception as error:  # it belongs to the reader, who raises it
            self._tell(error)
            return True
        return False

    def _tell(self, item: T | _End | Exception) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody listens
            self._loop.call_soon_threadsafe(self._items.put_nowait, item)

    async def items(self, gone: Callable[[], Awaitable[bool]]) -> AsyncIterator[T]:
        """What it yields, as it comes; leaving cancels the job.

        Args:
            gone: Whether its client has left; asked while nothing comes.

        Raises:
            Refused: The client has left; nobody reads this.
        """
        try:
            while True:
                try:
                    item = await asyncio.wait_for(self._items.get(), LOOK)
                except (TimeoutError, asyncio.TimeoutError):
                    if await gone():
                        raise Refused(499, "the client has left") from None
                    continue
                if isinstance(item, _End):
                    return
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.cancel()

    async def last(self, gone: Callable[[], Awaitable[bool]]) -> T:
        """The last item; as `items`."""
        found = [item async for item in self.items(gone)]
        return found[-1]


class Worker:
    """The thread and its queue.

    Args:
        most: Jobs that are there at a time, the one at work included, those given up not.
        metrics: Counts them.
    """

    def __init__(self, most: int, metrics: Metrics) -> None:
        self._most, self._metrics = most, metrics
        self._jobs: queue.SimpleQueue[Job[object] | None] = queue.SimpleQueue()
        self._waiting: deque[Job[object]] = deque()  # those in `_jobs`, to look at
        self._lock = threading.RLock()
        self._at_work, self._usual = False, FIRST_GUESS
        self._thread = threading.Thread(target=self._work, name="diffinst-worker", daemon=True)
        self._thread.start()

    @property
    def there(self) -> int:
        """Jobs that somebody waits for, and the one at work."""
        with self._lock:
            return self._at_work + sum(not job.left for job in self._waiting)

    def needed(self) -> list[Key]:
        """Encoded images that waiting jobs will ask for, the next one's first."""
        with self._lock:
            return [job.needs for job in self._waiting if not job.left]

    def submit(self, make: Make[T], needs: Key) -> Job[T]:
        """Put work into the queue; call it where an event loop runs.

        Args:
            make: As in `Job`.
            needs: As there.

        Raises:
            Refused: 429, with the seconds after which to try again.
        """
        with self._lock:
            if self.there >= self._most:
                self._metrics.count("refused_busy")
                wait = min(60, max(1, math.ceil(self._usual)))  # then there is one less
                raise Refused(429, f"{self.there} requests wait already; try again later", wait)
            job = Job(make, asyncio.get_running_loop(), needs)
            self._waiting.append(job)  # type: ignore[arg-type]
            self._jobs.put(job)  # type: ignore[arg-type]
        return job

    def close(self) -> None:
        """End the thread after the job at work."""
        self._jobs.put(None)
        self._thread.join(timeout=10)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            with self._lock:
                self._waiting.remove(job)
                self._at_work = True
            since = time.monotonic()
            done = job.run()
            took = time.monotonic() - since
            with self._lock:
                self._at_work = False
                if done:
                    self._usual = 0.8 * self._usual + 0.2 * took
            self._metrics.count("jobs_done" if done else "jobs_cancelled")
            self._metrics.add("work_seconds", took)
