"""How do several processes share the images? Each asks for the next one when it is free."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

import torch

from diffinst.acceleration.optimize import Precision
from diffinst.datasets.split import ImageRecord
from diffinst.evaluation.prediction import Request, predict_record
from diffinst.evaluation.source import Source
from diffinst.evaluation.store import Shard
from diffinst.io.images import ImageReadError

Origin = tuple[Path, Precision | None, bool, str, str]
"""A model's folder, its precision, whether it is compiled, `Source.digest`, `.config_digest`."""

_GRACE = 60.0  # seconds for the images at hand when the work is stopped


def devices(asked: str | None, processes: int) -> list[str]:
    """One device per process: the one asked for, or GPUs in turn, or the CPU."""
    gpus = torch.cuda.device_count()
    usual = [f"cuda:{i}" for i in range(gpus)] or ["cpu"]
    choice = usual if asked is None or (asked == "cuda" and gpus > 1) else [asked]
    return [choice[i % len(choice)] for i in range(processes)]


def predict_in_processes(
    source: Source,
    records: Sequence[ImageRecord],
    asked: Request,
    shards: Path,
    on: Sequence[str],
) -> Iterator[str | None]:
    """Predict images, each by one process, which writes a shard of its own.

    Args:
        source: The model; every process loads its folder and refuses another model there.
        records: What is left to do.
        asked: How.
        shards: Folder of the shards.
        on: A device per process.

    Yields:
        After each image None, or why it could not be read.

    Raises:
        ChildProcessError: A process failed; what is finished stays in the shards.
    """
    how = source.model.precision, source.compile_network
    origin = (source.folder, *how, source.digest, source.config_digest)
    context = multiprocessing.get_context("spawn")  # forked processes cannot use CUDA
    threads = max(1, torch.get_num_threads() // len(on))
    workers: dict[Connection, SpawnProcess] = {}
    try:
        for device in on[: len(records)]:
            ours, theirs = context.Pipe()
            task = (theirs, origin, device, threads, asked, shards)
            workers[ours] = context.Process(target=_work, args=task, daemon=True)
            workers[ours].start()
            theirs.close()  # so that the end of the process ends the pipe
        left, running = iter(records), list(workers)
        while running:
            for connection in wait(running):
                assert isinstance(connection, Connection)
                outcome, error = _receive(connection, workers[connection])
                if outcome == "done":
                    yield error
                record = next(left, None)
                with _alive(workers[connection]):
                    connection.send(record)
                if record is None:
                    running.remove(connection)
    finally:
        _stop(workers)


def _receive(connection: Connection, process: SpawnProcess) -> tuple[str, str | None]:
    """("ready", None) or ("done", message of a failed image)."""
    with _alive(process):
        outcome, message = connection.recv()
    if outcome == "failed":
        raise ChildProcessError(f"an evaluation process failed: {message}")
    return outcome, message


@contextmanager
def _alive(process: SpawnProcess) -> Iterator[None]:
    """A pipe with nobody at its other end means that the process was lost."""
    try:
        yield
    except (EOFError, ConnectionError):
        process.join()
        code = process.exitcode
        reason = "killed, perhaps for lack of memory" if code and code < 0 else "ended"
        raise ChildProcessError(
            f"an evaluation process was {reason} (exit code {code}); finished images are kept: "
            "the same command goes on from there, perhaps with fewer --processes"
        ) from None


def _stop(workers: Mapping[Connection, SpawnProcess]) -> None:
    """Let each finish its image: a process ends when nobody is at the other end of its pipe."""
    for connection in workers:
        connection.close()
    for process in workers.values():
        process.join(_GRACE)
        if process.is_alive():
            process.kill()
            process.join()


def _work(
    connection: Connection,
    origin: Origin,
    device: str,
    threads: int,
    asked: Request,
    shards: Path,
) -> None:
    """The whole life of a process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: the parent stops us
    torch.set_num_threads(threads)
    serve(connection, origin, device, asked, shards)


def serve(
    connection: Connection, origin: Origin, device: str, asked: Request, shards: Path
) -> None:
    """Ask for an image, predict it, write it, ask for the next; ends with None or the parent.

    Args:
        connection: Sends ("ready", None) once, ("done", None or why it could not be read) after
            each image, ("failed", why) at last if anything else goes wrong; receives records.
        origin: The model.
        device: Where the model runs.
        asked: How to predict.
        shards: Folder of the shards.
    """
    try:
        folder, precision, compiled, *digests = origin
        loaded = Source.load(folder, device, precision, compile_network=compiled)
        loaded.check_same(*digests)
        connection.send(("ready", None))
        with Shard(shards) as shard:
            while (record := connection.recv()) is not None:
                error = None
                try:
                    shard.append(predict_record(loaded.model, record, asked))
                except ImageReadError as problem:
                    error = str(problem)
                connection.send(("done", error))
    except (EOFError, ConnectionError):
        return  # the parent is gone; what was predicted is written
    except (OSError, ValueError) as problem:
        connection.send(("failed", str(problem)))
    except Exception:
        connection.send(("failed", traceback.format_exc()))
