"""Who counts in the queue, and what is a client told when it is full?"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager

import pytest

pytest.importorskip("fastapi", reason="pip install 'diffinst[serve]'")

from diffinst.serve.cache import Key
from diffinst.serve.metrics import Metrics
from diffinst.serve.queue import FIRST_GUESS, Job, Worker
from diffinst.serve.refusal import Refused

KEY = Key(None, "", "tiny")


@contextmanager
def at_work(worker: Worker) -> Iterator[Callable[[], Job[int]]]:
    """A job at work until the block ends; yields what puts further ones behind it."""
    begun, end = threading.Event(), threading.Event()

    def long(left: Callable[[], bool]) -> Generator[int, None, None]:
        begun.set()
        end.wait(30)
        yield 0

    def short(left: Callable[[], bool]) -> Generator[int, None, None]:
        yield 1

    worker.submit(long, KEY)
    assert begun.wait(30)
    try:
        yield lambda: worker.submit(short, KEY)
    finally:
        end.set()
        worker.close()


def test_who_has_left_keeps_no_place_in_the_queue() -> None:
    async def scene() -> None:
        metrics = Metrics()
        worker = Worker(3, metrics)
        with at_work(worker) as submit:
            first, _ = submit(), submit()
            with pytest.raises(Refused, match="3 requests wait already") as refused:
                submit()
            assert refused.value.status == 429
            first.cancel()
            assert worker.there == 2
            submit()
            assert worker.there == 3
        assert worker.there == 0
        assert (metrics["jobs_done"], metrics["jobs_cancelled"]) == (3, 1)

    asyncio.run(scene())


def test_a_full_queue_asks_to_come_again_after_the_time_of_one_job() -> None:
    async def scene() -> None:
        worker = Worker(6, Metrics())
        with at_work(worker) as submit:
            jobs = [submit() for _ in range(5)]
            with pytest.raises(Refused) as refused:
                submit()
            assert refused.value.retry_after == FIRST_GUESS
            for job in jobs:
                job.cancel()

    asyncio.run(scene())
