"""Runs an evaluation that survives: what a stopped run had predicted is not predicted again."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from diffinst.datasets.split import ImageRecord, Split
from diffinst.evaluation.evaluator import Report, evaluate_records, report
from diffinst.evaluation.prediction import Options, Request, predict_record, request
from diffinst.evaluation.source import Source
from diffinst.evaluation.store import Store, check_images, describe
from diffinst.evaluation.workers import devices, predict_in_processes
from diffinst.inference.predictor import DiffusionInst
from diffinst.io.images import ImageReadError

__all__ = ["Source", "run"]


def run(
    source: Source,
    split: Split,
    out: Path | None = None,
    options: Options | None = None,
    *,
    limit: int | None = None,
    processes: int = 1,
    device: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Predict the images of a split that are not predicted yet, and score all of them.

    Any number of processes gives the same predictions, if torch uses as many threads: processes on
    a CPU share them, and sums over other numbers of threads differ in their last bits.

    Args:
        source: What to evaluate.
        split: Annotated images, or images alone: then all metrics are NaN.
        out: Run folder, see `evaluation.store`; None: nothing is kept.
        options: How to predict.
        limit: Only the first images, so many.
        processes: How many predict; more than one load the model again each.
        device: Of the processes, if several; None: GPUs in turn, or the CPU.
        progress: Called with (done, total) at the start and after each image.

    Raises:
        ConfigError: A value is out of range.
        ValueError: No images, other classes than the model's, or `out` holds predictions of
            another model, other images or settings.
        ChildProcessError: One of several processes failed.
    """
    if processes < 1 or (limit is not None and limit < 1):
        raise ValueError(f"processes={processes}, limit={limit}: give at least 1 of each")
    asked = request(source.model.config, split, options or Options())
    records = [replace(record, annotations=()) for record in islice(split.records, limit)]
    if not records:
        raise ValueError(f"{split.annotation_file} lists no images: there is nothing to evaluate")
    if out is None and processes > 1:
        with tempfile.TemporaryDirectory() as folder:
            return _run(source, split, Path(folder), asked, records, processes, device, progress)
    if out is None:
        return evaluate_records(source.model, split, records, asked, progress)
    return _run(source, split, out, asked, records, processes, device, progress)


def _run(
    source: Source,
    split: Split,
    out: Path,
    asked: Request,
    records: Sequence[ImageRecord],
    processes: int,
    device: str | None,
    progress: Callable[[int, int], None] | None,
) -> Report:
    """As `run`, with everything decided."""
    on = [str(source.model.device)] if processes == 1 else devices(device, processes)
    store = Store(out, describe(source, split, asked, on[0]))
    known = {record.id for record in split.records}
    left = _left(store, known, records)
    if processes == 1:
        outcomes = _predict_here(source.model, left, asked, store)
    else:
        outcomes = predict_in_processes(source, left, asked, store.shards, on)
    failed: list[str] = []
    before = len(records) - len(left)
    if progress is not None:
        progress(before, len(records))
    for count, error in enumerate(outcomes, start=before + 1):
        failed += [error] if error is not None else []
        if progress is not None:
            progress(count, len(records))
    done = store.read(known)
    check_images(done, records)
    predictions = [done[record.id] for record in records if record.id in done]
    assert len(predictions) + len(failed) == len(records)  # every image exactly once
    return report(split, predictions, asked.max_detections, failed)


def _left(
    store: Store, known: Collection[int], records: Sequence[ImageRecord]
) -> list[ImageRecord]:
    """What is not predicted yet; what is does not stay in memory meanwhile."""
    done = store.read(known)
    check_images(done, records)
    return [record for record in records if record.id not in done]


def _predict_here(
    model: DiffusionInst, records: Sequence[ImageRecord], asked: Request, store: Store
) -> Iterator[str | None]:
    """As `predict_in_processes`, in this process."""
    with store.shard() as shard:
        for record in records:
            try:
                shard.append(predict_record(model, record, asked))
            except ImageReadError as error:
                yield str(error)
            else:
                yield None
