"""A pool of processes on this machine: each takes the next chunk, shards are written when whole."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec

from diffinst.scale.job import Job, Listener
from diffinst.scale.messages import Item, Row
from diffinst.scale.plan import Plan
from diffinst.scale.progress import Counter
from diffinst.scale.rows import write_part
from diffinst.scale.shard import chunks, predict_chunk
from diffinst.scale.watch import Watched, memory_each

LOOK = 0.5  # seconds between two looks at whether the run is to end


@dataclass
class _Open:
    """A shard that is being worked on: its chunks' rows, as far as they are there."""

    shard: int
    left: int = 0
    rows: dict[int, list[Row]] = field(default_factory=dict)


def run_local(job: Job, devices: Sequence[str], listener: Listener) -> None:
    """Do some shards with one process per device named.

    Raises:
        OSError: A part cannot be written; those that are written stay.
        ChildProcessError: Processes cannot be started, or are lost again and again.
    """
    memory = memory_each(len(devices)) if job.memory is None else job.memory
    setups = [msgspec.structs.replace(job.setup, device=device) for device in devices]
    pool = [Watched(setup, job.timeout, memory, listener.note) for setup in setups]
    work = _Work(job, listener.counter)
    threads = [threading.Thread(target=work.serve, args=(watched,)) for watched in pool]
    try:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads) and work.failures.empty():
            for thread in threads:
                thread.join(LOOK / len(threads))
    finally:
        work.stop.set()
        for watched in pool:
            watched.close()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
    if not work.failures.empty():
        raise work.failures.get()


def _tasks(
    plan: Plan, shards: Sequence[int], at_once: int
) -> Iterator[tuple[_Open, int, Sequence[Item]]]:
    """Chunks one after the other, each with its shard and its place there."""
    for shard in shards:
        parts = list(chunks(plan.shard(shard), at_once))
        opened = _Open(shard, len(parts))
        for i, part in enumerate(parts):
            yield opened, i, part


class _Work:
    """What the threads of a pool share."""

    def __init__(self, job: Job, counter: Counter) -> None:
        self.job, self.counter, self.where = job, counter, job.place()
        self.feed: Iterator[tuple[_Open, int, Sequence[Item]]] | None = None
        self.stop = threading.Event()
        self.failures: queue.SimpleQueue[BaseException] = queue.SimpleQueue()
        self._lock = threading.Lock()

    def serve(self, watched: Watched) -> None:
        """Work with one process until nothing is left; what goes wrong ends the run."""
        try:
            at_once = watched.at_once  # all start their processes, side by side
            while not self.stop.is_set():
                with self._lock:
                    if self.feed is None:
                        self.feed = _tasks(self.job.plan(), self.job.shards, at_once)
                    task = next(self.feed, None)
                if task is None:
                    return
                self._do(watched, *task)
        except BaseException as failure:
            if not self.stop.is_set():  # what comes of closing the processes is no news
                self.failures.put(failure)

    def _do(self, watched: Watched, opened: _Open, place: int, items: Sequence[Item]) -> None:
        rows = predict_chunk(watched, items, partial(count, self.counter))
        with self._lock:
            opened.rows[place] = rows
            whole = len(opened.rows) == opened.left
        if whole:
            everything = [row for i in range(opened.left) for row in opened.rows[i]]
            opened.rows.clear()
            write_part(self.where, opened.shard, everything, self.job.fingerprint)


def count(counter: Counter, row: Row) -> None:
    """Take one image that is done."""
    counter.count(1, int(row.error is not None), len(row.instances))
