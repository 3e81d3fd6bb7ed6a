"""Evaluates a model on a split, and survives: what a stopped run had predicted is kept."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Literal

from diffinst.acceleration.optimize import Precision
from diffinst.datasets.load import load_split
from diffinst.datasets.split import ImageRecord, Split
from diffinst.evaluation.outputs import write_outputs
from diffinst.evaluation.prediction import (
    Prediction,
    Request,
    SamplerKind,
    predict_and_keep,
    request,
    score_threshold,
)
from diffinst.evaluation.report import Report, score
from diffinst.evaluation.source import Source
from diffinst.evaluation.store import Shard, Store, describe
from diffinst.evaluation.workers import devices, predict_in_processes
from diffinst.inference.predictor import DiffusionInst

Progress = Callable[[int, int], None]


def evaluate(
    model: DiffusionInst | Source | str | Path,
    data: Split | str | Path,
    *,
    split: str = "val",
    steps: int | Literal["auto"] | None = None,
    proposals: int | None = None,
    max_detections: int | None = None,
    seed: int = 0,
    kind: SamplerKind | None = None,
    noises: int = 1,
    single_class: bool = False,
    limit: int | None = None,
    out: str | Path | None = None,
    files: bool = True,
    worst: int = 8,
    processes: int = 1,
    device: str | None = None,
    precision: Precision = "fp32",
    compile_network: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Predict the images of a split and score the results by COCO's rules (LVIS's on LVIS data).

    Of one class, label maps are scored as well, at the model's own score threshold.
    An image that cannot be read is noted in the report; the others are what is scored. Any number
    of processes gives the same predictions, if torch uses as many threads: processes on a CPU share
    them, and sums over other numbers of threads differ in their last bits.

    Args:
        model: Name of shipped weights, a model folder, a file, or a hub id; or a loaded model,
            which is used as it is.
        data: The dataset's folder, or a split that is read already. Without annotations all
            metrics are NaN.
        split: Which annotations of the folder.
        steps: Denoising steps, or `auto`: until a step finds nothing new; None: the model's own, as
            for the next two and `kind`.
        proposals: Boxes to start from.
        max_detections: Results kept and counted per image; on federated data 300 where None.
        seed: Of the noise, the same for every image.
        kind: `ddim` or `search`, how a step follows from the one before.
        noises: Runs of each image, from the noise of seed, seed + 1, ...; see `OptionFields`.
        single_class: Take all classes as one; a split that is given is `Split.merged` already.
        limit: Use the first N images only.
        out: Run folder: an evaluation that was stopped goes on from there (see `store`). Gets
            metrics.json and the other files of `outputs`. None: nothing is kept.
        files: Whether there is more in `out` than the predictions.
        worst: How many of the worst images are drawn there.
        processes: How many share the images; more than one load a model given by name each.
        device: Where a model given by name runs, and several processes, which take GPUs in turn
            where None; else a GPU if there is one, or the CPU.
        precision: As in `DiffusionInst.optimize`, of a model given by name.
        compile_network: As there.
        progress: Called with (done, total) at the start and after each image.

    Raises:
        CheckpointError: The model cannot be used; says why.
        ConfigError: A value is out of range.
        DatasetError: The data cannot be read.
        ValueError: No images, other classes than the model's, or `out` holds predictions of
            another model, other images or settings.
        ChildProcessError: One of several processes failed.

    Example:
        >>> report = evaluate("nano-nuclei", "DATA", out="runs/nuclei")  # doctest: +SKIP
        >>> report.mask.ap  # doctest: +SKIP
    """
    if processes < 1 or (limit is not None and limit < 1):
        raise ValueError(f"processes={processes}, limit={limit}: give at least 1 of each")
    if not isinstance(data, Split):
        data = load_split(Path(data), split, single_class=single_class)
    source = Source.of(
        model, device, precision, compile_network=compile_network, processes=processes
    )
    asked = request(
        source.model.config,
        data,
        steps=steps,
        proposals=proposals,
        max_detections=max_detections,
        seed=seed,
        kind=kind,
        noises=noises,
        single_class=single_class,
    )
    records = [replace(record, annotations=()) for record in islice(data.records, limit)]
    if not records:
        raise ValueError(f"{data.annotation_file} lists no images: there is nothing to evaluate")
    on = devices(device, processes) if processes > 1 else [str(source.model.device)]
    predictions, failed = _predict(source, data, asked, records, out, on, progress)
    threshold = score_threshold(source.model.config)
    report = score(data, predictions, asked.max_detections, failed, threshold)
    if out is None or not files:
        return report
    notes = write_outputs(
        report,
        data,
        asked,
        Path(out),
        title=f"{source.name} on {data.image_dir.parent.name} {data.name}",
        worst=worst,
        threshold=threshold,
        reading=source.model.config.preprocess,
    )
    return replace(report, notes=tuple(notes))


def _predict(
    source: Source,
    split: Split,
    asked: Request,
    records: Sequence[ImageRecord],
    out: str | Path | None,
    on: Sequence[str],
    progress: Progress | None,
) -> tuple[list[Prediction], list[str]]:
    """The predictions of all images, and why those that have none could not be read."""
    if out is None and len(on) == 1:
        predictions: list[Prediction] = []
        outcomes = predict_and_keep(source.model, records, asked, predictions.append)
        return predictions, _errors(outcomes, 0, len(records), progress)
    with tempfile.TemporaryDirectory() as spare:
        store = Store(Path(out or spare), describe(source, split, asked, on[0]))
        before = set(store.read(split, records))  # not the predictions: they stay on disk meanwhile
        left = [record for record in records if record.id not in before]
        if len(on) == 1:
            outcomes = predict_and_keep(source.model, left, asked, Shard(store.shards).append)
        else:
            outcomes = predict_in_processes(source, left, asked, store.shards, on)
        failed = _errors(outcomes, len(records) - len(left), len(records), progress)
        done = store.read(split, records)
    predictions = [done[record.id] for record in records if record.id in done]
    assert len(predictions) + len(failed) == len(records)  # every image exactly once
    return predictions, failed


def _errors(
    outcomes: Iterable[str | None], before: int, total: int, progress: Progress | None
) -> list[str]:
    """Work through the images; the messages of those that could not be read."""
    errors: list[str] = []
    if progress is not None:
        progress(before, total)
    for count, error in enumerate(outcomes, start=before + 1):
        errors += [error] if error is not None else []
        if progress is not None:
            progress(count, total)
    return errors
