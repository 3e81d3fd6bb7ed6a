"""What a runner is to do, as one value: it crosses to other processes and machines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from diffinst.scale.messages import Setup
from diffinst.scale.place import Place, place
from diffinst.scale.plan import Plan
from diffinst.scale.progress import Counter


@dataclass(frozen=True)
class Job:
    """Some shards of a run.

    Attributes:
        out: The run's folder or URI.
        shard_size: Images of a shard.
        shards: Those to do.
        setup: What a process predicts with.
        fingerprint: Of the run; each part carries it.
        timeout: Seconds without an answer after which a process counts as hanging.
        memory: Bytes that a process may take; None: as the runner sees fit.
    """

    out: str
    shard_size: int
    shards: tuple[int, ...]
    setup: Setup
    fingerprint: str
    timeout: float
    memory: int | None

    def place(self) -> Place:
        """The run's folder."""
        return place(self.out)

    def plan(self) -> Plan:
        """Its plan, opened anew."""
        return Plan(self.place(), self.shard_size)


@dataclass(frozen=True)
class Listener:
    """Who is told how it goes.

    Attributes:
        counter: Counts images.
        note: Gets what is to be told of how images are read.
    """

    counter: Counter
    note: Callable[[str], object]
