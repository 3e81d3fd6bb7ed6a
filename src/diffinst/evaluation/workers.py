"""Several processes share the images of an evaluation, a few at a time to whoever is free."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from ctypes import c_bool
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import torch

from diffinst.datasets.split import ImageRecord
from diffinst.evaluation.prediction import Request, predict_and_keep
from diffinst.evaluation.source import Origin, Source
from diffinst.evaluation.store import Shard

Predict = Callable[[Sequence[ImageRecord]], "list[str | None]"]

_MAX_CHUNK = 16  # images handed out at once
_CHUNKS_EACH = 4  # at least, so that processes end together


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
        on: A device per process; those on a CPU share this process's threads.

    Yields:
        For each image None, or why it could not be read.

    Raises:
        ChildProcessError: A process failed; what is finished stays in the shards.
    """
    size = max(1, min(_MAX_CHUNK, len(records) // (_CHUNKS_EACH * len(on))))
    chunks = [records[i : i + size] for i in range(0, len(records), size)]
    if not chunks:
        return
    context = multiprocessing.get_context("spawn")  # forked processes cannot use CUDA
    stop = context.RawValue(c_bool, False)  # without a lock, which a killed process might hold
    seats: SimpleQueue[str] = context.SimpleQueue()
    for device in on:
        seats.put(device)
    others, workers = set(multiprocessing.active_children()), set()
    threads = max(1, torch.get_num_threads() // len(on))
    task = (threads, seats, source.origin, asked, shards, stop)
    pool = ProcessPoolExecutor(min(len(on), len(chunks)), context, _start, task)
    try:
        futures: list[Future[list[str | None]]] = []
        for chunk in chunks:
            futures.append(pool.submit(_predict, chunk))
            workers |= set(multiprocessing.active_children()) - others
        for future in as_completed(futures):
            yield from future.result()
    except BrokenProcessPool:
        pool.shutdown()  # ends what is left with SIGTERM, and knows all exit codes then
        codes = {worker.exitcode or 0 for worker in workers} - {0, -signal.SIGTERM}
        code = min(codes, default=-signal.SIGTERM)
        reason = "killed, perhaps for lack of memory" if code < 0 else "ended"
        raise ChildProcessError(
            f"an evaluation process was {reason} (exit code {int(code)}); finished images are "
            "kept: the same command goes on from there, perhaps with fewer --processes"
        ) from None
    finally:
        stop.value = True  # each finishes the image at hand
        pool.shutdown(cancel_futures=True)


def worker(origin: Origin, device: str, asked: Request, shards: Path, stop: c_bool) -> Predict:
    """What one process does: it loads the model once, and then predicts what it is given.

    Args:
        origin: From `Source.origin`.
        device: Where the model runs.
        asked: How to predict.
        shards: Folder of the predictions.
        stop: Set when the work is to end; the image at hand is finished.

    Returns:
        Called with images: for each None, or why it could not be read.

    Raises:
        CheckpointError: The model cannot be loaded, or is another one.
    """
    model, shard = Source.load_again(origin, device).model, Shard(shards)

    def predict(records: Sequence[ImageRecord]) -> list[str | None]:
        errors = []
        for error in predict_and_keep(model, records, asked, shard.append):
            errors.append(error)
            if stop.value:
                break
        return errors

    return predict


_work: Predict | str = "not started"
"""What this process of a pool does, or why it cannot."""


def _start(
    threads: int,
    seats: SimpleQueue[str],
    origin: Origin,
    asked: Request,
    shards: Path,
    stop: c_bool,
) -> None:
    """Set up a process of the pool; what fails here is said by its first prediction."""
    global _work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: the parent stops us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    try:
        _work = worker(origin, seats.get(), asked, shards, stop)
    except Exception as problem:
        _work = _reason(problem)


def _predict(records: Sequence[ImageRecord]) -> list[str | None]:
    try:
        if not isinstance(_work, str):
            return _work(records)
        reason = _work
    except Exception as problem:
        reason = _reason(problem)
    raise ChildProcessError(f"an evaluation process failed: {reason}")


def _reason(problem: Exception) -> str:
    """The message alone where it was written for people."""
    expected = isinstance(problem, (OSError, ValueError))
    return str(problem) if expected else "".join(traceback.format_exception(problem))


def _end_with_parent() -> None:
    """The pool's processes would wait for ever for work from a parent that was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
