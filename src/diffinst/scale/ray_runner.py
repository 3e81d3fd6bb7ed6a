"""Ray Data: shards go to actors, each with a model, on as many machines as the cluster has.

An actor keeps the process that predicts as the local pool does, so what hangs or crashes is stopped
there, too; it reads its shard from the plan, decodes files or addresses, and writes the part.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from diffinst.scale.job import Job, Listener
from diffinst.scale.rows import write_part
from diffinst.scale.shard import do_shard
from diffinst.scale.watch import Watched, memory_each

KNOCK = 10.0  # seconds
INSTALL = "install it: pip install 'diffinst[scale,ray]'"


def need_ray() -> None:
    """Refuse to begin without Ray.

    Raises:
        ValueError: Says what to install.
    """
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise ValueError(f"--on ray needs Ray, which is not installed; {INSTALL}") from error


@dataclass(frozen=True)
class Cluster:
    """What a cluster has."""

    cpus: int
    gpus: int
    machines: int


@contextmanager
def cluster(say: Callable[[str], None]) -> Iterator[Cluster]:
    """Connect to a Ray cluster, or start one on this machine and say so.

    Raises:
        ValueError: Ray is not installed, or RAY_ADDRESS names a cluster that does not answer.
    """
    need_ray()
    import ray

    ours = not ray.is_initialized()
    if ours:
        _connect(say)
    try:
        resources = ray.cluster_resources()
        machines = sum(bool(node["Alive"]) for node in ray.nodes())
        yield Cluster(int(resources.get("CPU", 0)), int(resources.get("GPU", 0)), machines)
    finally:
        if ours:
            ray.shutdown()


def _connect(say: Callable[[str], None]) -> None:
    import ray

    address = os.environ.get("RAY_ADDRESS")
    if address:
        _knock(address)
    try:
        ray.init(address=address or "auto", log_to_driver=False, logging_level="ERROR")
        return
    except ConnectionError as error:
        if address:
            raise ValueError(_unanswered(address)) from error
    say("no Ray cluster is running here (RAY_ADDRESS is not set): starting one on this machine")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")


def _knock(address: str) -> None:
    """Refuse an address where nothing listens at once: Ray itself waits for many minutes.

    Raises:
        ValueError: Nothing listens there.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdecimal():
        return  # `auto`, or a name of Ray's own
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK).close()
    except (OSError, OverflowError) as error:
        raise ValueError(_unanswered(address)) from error


def _unanswered(address: str) -> str:
    return (
        f"RAY_ADDRESS={address}: no Ray cluster answers there; start one (ray start --head), or "
        "unset RAY_ADDRESS to have one on this machine"
    )


class Shards:
    """What an actor does: shards, with one model, kept from one call to the next."""

    def __init__(self, job: Job, memory: int | None) -> None:
        self.job, self.where = job, job.place()
        try:
            self.plan = job.plan()
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{job.out}: not on this machine of the cluster; use a folder that all machines "
                "share, or a URI"
            ) from error
        self.notes: set[str] = set()
        self.watched = Watched(job.setup, job.timeout, memory, self.notes.add)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Do the shards of a batch; a line of counts for each, no pixels."""
        answer: dict[str, list[Any]] = {"images": [], "errors": [], "instances": [], "notes": []}
        for shard in batch["item"].tolist():
            rows = do_shard(self.watched, self.plan.shard(shard))
            write_part(self.where, shard, rows, self.job.fingerprint)
            answer["images"].append(len(rows))
            answer["errors"].append(sum(row.error is not None for row in rows))
            answer["instances"].append(sum(len(row.instances) for row in rows))
            answer["notes"].append("\n".join(sorted(self.notes)))
        return answer


def run_ray(job: Job, found: Cluster, workers: int | None, listener: Listener) -> None:
    """Do some shards on the cluster that is connected to.

    Raises:
        OSError: A part cannot be written.
        ChildProcessError: Processes cannot be started, or are lost again and again.
    """
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    on_gpus = job.setup.device != "cpu"
    most = found.gpus if on_gpus else found.cpus
    actors = min(workers or most or 1, len(job.shards))
    memory = job.memory or memory_each(-(-actors // found.machines))
    DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # it tells of every plan
    # A block per shard: what is done again when an actor is lost.
    shards = ray.data.from_items(list(job.shards), override_num_blocks=len(job.shards))
    done = shards.map_batches(
        Shards,
        fn_constructor_args=(job, memory),
        batch_size=1,
        # A shard each: a second one in the queue of a late actor would be waited for at the end.
        compute=ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=1),
        num_cpus=0 if on_gpus else 1,
        num_gpus=min(1.0, most / actors) if on_gpus else None,
    )
    try:
        for row in done.iter_rows():
            listener.counter.count(row["images"], row["errors"], row["instances"])
            for text in filter(None, row["notes"].split("\n")):
                listener.note(text)
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None) or error
        if isinstance(cause, OSError | ValueError):
            raise type(cause)(str(cause)) from error
        raise ChildProcessError(f"Ray gave up: {str(cause).strip().splitlines()[-1]}") from error
