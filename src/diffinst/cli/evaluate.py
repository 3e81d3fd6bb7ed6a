"""`diffinst eval`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from diffinst.cli.ending import writing_into
from diffinst.cli.options import Amount, Compiled, Count, Precise, Processes, Seed, usable_device
from diffinst.cli.tables import print_classes, print_metrics, print_sweep
from diffinst.cli.terminal import progress_bar, say, say_some

if TYPE_CHECKING:
    from diffinst.datasets.split import Split
    from diffinst.evaluation.report import Report
    from diffinst.evaluation.sweep import Cell

Numbers = Annotated[list[Count] | None, Parameter(consume_multiple=True, negative=())]


def evaluate(
    *,
    data: Path,
    model: str,
    split: str = "val",
    steps: Count | Literal["auto"] | None = None,
    proposals: Count | None = None,
    max_detections: Count | None = None,
    seed: Seed = 0,
    kind: Literal["ddim", "search"] | None = None,
    noises: Count = 1,
    device: str | None = None,
    precision: Precise = "fp32",
    compile_network: Compiled = False,
    out: Path | None = None,
    limit: Count | None = None,
    processes: Processes = 1,
    single_class: Annotated[bool, Parameter(negative=())] = False,
    worst: Amount = 8,
    submission: Path | None = None,
    sweep_steps: Numbers = None,
    sweep_proposals: Numbers = None,
) -> None:
    """Mask and box AP of a model on an annotated split: COCO's, or LVIS's on LVIS data.

    Example: diffinst eval --data DATA --model runs/mine/best --out runs/mine/eval

    On data of one class also mSA, AP@0.5, F1@0.5 and PQ of its label maps.

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
        Denoising steps, or auto: until a step finds nothing new.
    proposals
        Boxes to start from.
    max_detections
        Kept and counted per image; default: the model's own, in LVIS 300. More for crowded ones.
    seed
        Of the starting noise.
    kind
        How a step follows from the one before: ddim (the paper), or search: every step looks for
        more with fresh boxes, and what was found stays. Default: as the model has it.
    noises
        Runs of each image, each from noise of its own; every object comes once, with its stability.
    device
        cpu, cuda or cuda:1, ...; default: a GPU if there is one, all of them for several processes.
    out
        Folder for predictions/, metrics.json, results.json, per_class.csv, precision_recall.png
        and the worst images.
    limit
        Use the first N images only.
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
    from diffinst.datasets.load import load_split
    from diffinst.evaluation.evaluate import evaluate as evaluate_split
    from diffinst.evaluation.source import Source
    from diffinst.evaluation.sweep import sweep

    sweeping = bool(sweep_steps or sweep_proposals)
    if sweeping and submission:
        raise ValueError("--submission takes one evaluation; omit --sweep-steps, -proposals")
    if submission and single_class:
        raise ValueError(
            "--submission needs the benchmark's own classes, which --single-class takes as one; "
            "omit one of them"
        )
    place = usable_device(device)
    annotated = load_split(data, split, single_class=single_class)
    _check_purpose(annotated, out, submission, sweeping=sweeping)
    source = Source.of(
        model, place, precision, compile_network=compile_network, processes=processes
    )
    if sweeping:
        with writing_into(out, "cells"), progress_bar("evaluating") as advance:
            cells = sweep(
                source,
                annotated,
                out,
                steps=sweep_steps or _listed(steps),
                proposals=sweep_proposals or _listed(proposals),
                max_detections=max_detections,
                seed=seed,
                kinds=[] if kind is None else [kind],
                noises=noises,
                single_class=single_class,
                limit=limit,
                processes=processes,
                device=device,
                progress=advance,
            )
        _show_sweep(cells, out, f"{source.name} on {annotated.image_dir.parent.name} {split}")
        return
    with writing_into(out, "worst", "predictions"), progress_bar("evaluating") as advance:
        report = evaluate_split(
            source,
            annotated,
            steps=steps,
            proposals=proposals,
            max_detections=max_detections,
            seed=seed,
            kind=kind,
            noises=noises,
            single_class=single_class,
            limit=limit,
            out=out,
            worst=worst,
            processes=processes,
            device=device,
            progress=advance,
        )
    _show(report, out)
    if submission is not None:
        _submit(report, annotated, submission)
    exit_if_failed(report.failed)


def _listed(number: int | Literal["auto"] | None) -> list[int]:
    if number == "auto":
        raise ValueError("--steps auto is no number to sweep; omit it, or the --sweep- options")
    return [] if number is None else [number]


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


def _show_sweep(cells: Sequence[Cell], out: Path | None, title: str) -> None:
    from diffinst.evaluation.sweep import write_sweep_curves

    print_sweep(cells)
    if out is not None:
        for note in write_sweep_curves(cells, out, title=title):
            say(note)
        say(f"written: {out}")
    exit_if_failed([message for cell in cells for message in cell.failed])


def _show(report: Report, out: Path | None) -> None:
    if report.annotated:
        print_metrics(report)
        print()
        where = f"in {out / 'per_class.csv'}" if out else "(all with --out)"
        print_classes(report.class_rows(), where)
    else:
        say(f"nothing is annotated on these {report.images} images: no metrics are computed")
    if out is not None:
        for note in report.notes:
            say(note)
        say(f"written: {out / 'results.json'}")
        if report.annotated:
            say(f"written: {out / 'metrics.json'} and what lies beside it")


def _submit(report: Report, split: Split, target: Path) -> None:
    from diffinst.evaluation.submission import write_submission

    made = write_submission(report.results, split, target)
    more = f"; {made.dropped} beyond the limit per image omitted" if made.dropped else ""
    say(f"submission: {made.archive} and {made.results}, {made.written} results{more}")


def exit_if_failed(messages: Sequence[str]) -> None:
    """Name the images that could not be read, each once."""
    failed = list(dict.fromkeys(messages))
    say_some(f"{len(failed)} images could not be read and are not counted:", failed)
    if failed:
        sys.exit(1)
