"""What steps and proposals buy: AP and time over both, from one set of weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from diffinst.datasets.split import Split
from diffinst.evaluation.curves import draw_sweep
from diffinst.evaluation.evaluate import Progress, evaluate
from diffinst.evaluation.outputs import write_csv
from diffinst.evaluation.prediction import SamplerKind, request
from diffinst.evaluation.report import ClassRow
from diffinst.evaluation.source import Source
from diffinst.io.atomic import write_json


@dataclass(frozen=True)
class Cell:
    """One evaluation of a sweep, without results and curves: all of them may not fit in memory.

    Attributes:
        steps: Denoising steps.
        proposals: Boxes to start from.
        values: What `Report.as_dict` says.
        classes: What `Report.class_rows` says.
        failed: One message per image that could not be predicted.
    """

    steps: int
    proposals: int
    values: dict[str, float | None]
    classes: tuple[ClassRow, ...]
    failed: tuple[str, ...]

    def as_row(self) -> dict[str, float | None]:
        """`steps`, `proposals`, and what `Report.as_dict` names."""
        return {"steps": self.steps, "proposals": self.proposals, **self.values}


def sweep(
    source: Source,
    split: Split,
    out: Path | None = None,
    *,
    steps: Sequence[int] = (),
    proposals: Sequence[int] = (),
    max_detections: int | None = None,
    seed: int = 0,
    kind: SamplerKind | None = None,
    noises: int = 1,
    single_class: bool = False,
    limit: int | None = None,
    processes: int = 1,
    device: str | None = None,
    progress: Progress | None = None,
) -> list[Cell]:
    """Evaluate every pair of steps and proposals; finished ones are not predicted again.

    After each pair OUT/sweep.json and OUT/sweep.csv hold what is there.

    Args:
        source: The model.
        split: Annotated images.
        out: Gets a run folder per pair, OUT/cells/steps-S_proposals-P; None: nothing is kept.
        steps: Numbers of steps; empty: the model's.
        proposals: Numbers of proposals; empty: the model's.
        max_detections: As in `evaluate`, like the next seven.
        seed: As there.
        kind: As there.
        noises: As there.
        single_class: As there.
        limit: As there.
        processes: As there.
        device: As there.
        progress: Called with (done, total), images of all pairs.

    Raises:
        ConfigError: A number is out of range; none is evaluated then.
        ValueError: As in `evaluate`.
    """
    config = source.model.config
    usual = config.sampler
    pairs = sorted(set(product(steps or (usual.steps,), proposals or (usual.proposals,))))
    for s, p in pairs:
        request(
            config,
            split,
            steps=s,
            proposals=p,
            max_detections=max_detections,
            kind=kind,
            noises=noises,
            single_class=single_class,
        )
    cells: list[Cell] = []
    for i, (s, p) in enumerate(pairs):
        report = evaluate(
            source,
            split,
            steps=s,
            proposals=p,
            max_detections=max_detections,
            seed=seed,
            kind=kind,
            noises=noises,
            single_class=single_class,
            limit=limit,
            out=None if out is None else out / "cells" / f"steps-{s}_proposals-{p}",
            files=False,
            processes=processes,
            device=device,
            progress=progress and _of_all(progress, i, len(pairs)),
        )
        rows = tuple(report.class_rows())
        cells.append(Cell(s, p, report.as_dict(), rows, report.failed))
        del report  # else the next pair's results come on top
        if out is not None:
            _write(cells, split, out)
    return cells


def write_sweep_curves(cells: Sequence[Cell], out: Path, *, title: str) -> list[str]:
    """Write OUT/sweep.png; says why if it cannot be drawn (no matplotlib)."""
    try:
        draw_sweep([cell.as_row() for cell in cells], out / "sweep.png", title=title)
    except ImportError as error:
        return [f"sweep.png is missing: {error}"]
    return []


def _write(cells: Sequence[Cell], split: Split, out: Path) -> None:
    rows = [cell.as_row() for cell in cells]
    write_json(out / "sweep.json", {"split": split.name, "rows": rows})
    fields = list(rows[0])
    write_csv(out / "sweep.csv", fields, ([row[field] for field in fields] for row in rows))


def _of_all(progress: Progress, before: int, pairs: int) -> Progress:
    return lambda done, total: progress(before * total + done, pairs * total)
