"""`diffinst eval`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from diffinst.cli.options import usable_device
from diffinst.cli.tables import print_classes, print_metrics, print_sweep
from diffinst.cli.terminal import progress_bar, say

if TYPE_CHECKING:
    from diffinst.datasets.split import Split
    from diffinst.evaluation.evaluator import Report
    from diffinst.evaluation.prediction import Options
    from diffinst.evaluation.run import Source

_FAILURES_SHOWN = 10
Numbers = Annotated[list[int] | None, Parameter(consume_multiple=True, negative=())]


def evaluate(
    *,
    data: Path,
    model: str,
    split: str = "val",
    steps: int | None = None,
    proposals: int | None = None,
    max_detections: int | None = None,
    seed: int = 0,
    device: str | None = None,
    precision: Literal["fp32", "bf16", "auto"] = "fp32",
    compile_network: Annotated[bool, Parameter(name="compile", negative=())] = False,
    out: Path | None = None,
    limit: int | None = None,
    processes: int = 1,
    single_class: Annotated[bool, Parameter(negative=())] = False,
    worst: int = 8,
    submission: Path | None = None,
    sweep_steps: Numbers = None,
    sweep_proposals: Numbers = None,
) -> None:
    """Mask and box AP of a model on an annotated split: COCO's, or LVIS's on LVIS data.

    With --out every finished image is kept: the same command again goes on where it stopped.
    The exit code is 1 if an image could not be read; the others are evaluated.

    Parameters
    ----------
    data
        The dataset's folder.
    model
        Name of shipped weights, a model folder, a file, or a hub id.
    split
        Which annotations.
    steps
        Denoising steps.
    proposals
        Boxes to start from.
    max_detections
        Kept and counted per image; default: the model's own, in LVIS 300. More for crowded ones.
    seed
        Of the starting noise.
    device
        cpu, cuda or cuda:1, ...; default: a GPU if there is one, all of them for several processes.
    precision
        fp32, bf16 (faster where the processor has it, nearly the same results), or auto: bf16 where
        this machine is faster with it.
    compile_network
        Compile the network at the first image of each size, which takes up to a minute: for
        thousands of images of a few sizes.
    out
        Folder for predictions/, metrics.json, results.json, per_class.csv, precision_recall.png
        and the worst images.
    limit
        Only the first images, so many.
    processes
        How many share the images; each loads the model.
    single_class
        Take all classes as one.
    worst
        How many of the worst images are drawn into OUT.
    submission
        File or folder for results as COCO's and LVIS's servers take them, JSON and zip.
    sweep_steps
        Evaluate each of these numbers of steps, with each number of proposals.
    sweep_proposals
        Evaluate each of these numbers of proposals, with each number of steps.
    """
    import torch

    from diffinst.acceleration.optimize import resolved
    from diffinst.datasets.load import load_split
    from diffinst.evaluation.prediction import Options
    from diffinst.evaluation.run import Source, run

    sweeping = bool(sweep_steps or sweep_proposals)
    if sweeping and submission:
        raise ValueError("--submission takes one evaluation; leave out --sweep-steps, -proposals")
    if submission and single_class:
        raise ValueError(
            "--submission needs the benchmark's own classes, which --single-class takes as one; "
            "leave out one of them"
        )
    if worst < 0:
        raise ValueError(f"--worst {worst}: give a number of images, 0 or more")
    several = processes > 1
    place = usable_device(device)
    chosen = resolved(precision, torch.device(place))  # once, for all processes
    if several:
        source = Source.load(model, "cpu", chosen)  # only to know it; the processes predict
        source = replace(source, compile_network=compile_network)
    else:
        source = Source.load(model, place, chosen, compile_network=compile_network)
    annotated = load_split(data, split, single_class=single_class)
    _check_purpose(annotated, out, submission, sweeping=sweeping)
    options = Options(steps, proposals, max_detections, seed, single_class)
    if sweeping:
        numbers = (sweep_steps or [], sweep_proposals or [])
        where = device if several else place
        _sweep(source, annotated, out, options, numbers, limit, processes, where)
        return
    with progress_bar("evaluating") as advance:
        report = run(
            source,
            annotated,
            out,
            options,
            limit=limit,
            processes=processes,
            device=device,
            progress=advance,
        )
    _print(report, out)
    if out is not None:
        _write(report, source, annotated, options, out, worst)
    if submission is not None:
        _submit(report, annotated, submission)
    _exit_if_failed(report.failed)


def _sweep(
    source: Source,
    split: Split,
    out: Path | None,
    options: Options,
    numbers: tuple[Sequence[int], Sequence[int]],
    limit: int | None,
    processes: int,
    device: str | None,
) -> None:
    from diffinst.evaluation.sweep import sweep, write_sweep_curves

    with progress_bar("evaluating") as advance:
        cells = sweep(
            source,
            split,
            out,
            options,
            steps=numbers[0],
            proposals=numbers[1],
            limit=limit,
            processes=processes,
            device=device,
            progress=advance,
        )
    print_sweep(cells)
    if out is not None:
        for problem in write_sweep_curves(cells, out, title=_title(source, split)):
            say(problem)
        say(f"written: {out}")
    _exit_if_failed([message for cell in cells for message in cell.report.failed])


def _check_purpose(
    split: Split, out: Path | None, submission: Path | None, *, sweeping: bool
) -> None:
    """Refuse to predict for nothing, before anything is predicted."""
    if any(record.annotations for record in split.records) or not split.records:
        return
    if sweeping or (out is None and submission is None):
        raise ValueError(
            f"{split.annotation_file} has no annotations, so there is nothing to measure; give "
            "--submission FILE or --out FOLDER to keep the results, without --sweep-..."
        )


def _print(report: Report, out: Path | None) -> None:
    from diffinst.evaluation.outputs import class_rows

    if not report.annotated:
        say(f"nothing is annotated on these {report.images} images: no metrics are computed")
        return
    print_metrics(report)
    print()
    print_classes(class_rows(report), f"in {out / 'per_class.csv'}" if out else "(all with --out)")


def _write(
    report: Report, source: Source, split: Split, options: Options, out: Path, worst: int
) -> None:
    from diffinst.evaluation.outputs import write_outputs
    from diffinst.evaluation.prediction import request
    from diffinst.evaluation.worst import score_threshold

    threshold = score_threshold(source.model.config.postprocess.threshold)
    title = _title(source, split)
    asked = request(source.model.config, split, options)
    problems = write_outputs(
        report, split, asked, out, title=title, worst=worst, threshold=threshold
    )
    for problem in problems:
        say(problem)
    say(f"written: {out / 'results.json'}")
    if report.annotated:
        say(f"written: {out / 'metrics.json'} and what lies beside it")


def _submit(report: Report, split: Split, target: Path) -> None:
    from diffinst.evaluation.submission import write_submission

    made = write_submission(report.results, split, target)
    more = f"; {made.dropped} beyond the limit per image left out" if made.dropped else ""
    say(f"submission: {made.archive} and {made.results}, {made.written} results{more}")


def _title(source: Source, split: Split) -> str:
    return f"{source.folder.name} on {split.image_dir.parent.name} {split.name}"


def _exit_if_failed(messages: Sequence[str]) -> None:
    """Name the images that could not be read, each once."""
    failed = list(dict.fromkeys(messages))
    if not failed:
        return
    say(f"{len(failed)} images could not be read and are not counted:")
    for message in failed[:_FAILURES_SHOWN]:
        say(f"  {message}")
    if len(failed) > _FAILURES_SHOWN:
        say(f"  and {len(failed) - _FAILURES_SHOWN} more")
    sys.exit(1)
