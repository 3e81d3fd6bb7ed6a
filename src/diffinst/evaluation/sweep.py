"""What do steps and proposals buy? AP and time over both, from one set of weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from diffinst.datasets.split import Split
from diffinst.evaluation.curves import draw_sweep
from diffinst.evaluation.evaluator import Report
from diffinst.evaluation.outputs import ClassRow, class_rows, write_csv
from diffinst.evaluation.prediction import Options, request
from diffinst.evaluation.run import Source, run
from diffinst.io.atomic import write_json

Row = dict[str, float | None]


@dataclass(frozen=True)
class Summary:
    """What is kept of a report: the results of all pairs together may not fit in memory.

    Attributes:
        row: What `Report.as_dict` says.
        classes: What `class_rows` says.
        failed: One message per image that could not be predicted.
    """

    row: Row
    classes: tuple[ClassRow, ...]
    failed: tuple[str, ...]

    @classmethod
    def of(cls, report: Report) -> Summary:
        """Drop results and curves."""
        return cls(report.as_dict(), tuple(class_rows(report)), report.failed)

    def as_dict(self) -> Row:
        """As `Report.as_dict`."""
        return dict(self.row)


@dataclass(frozen=True)
class Cell:
    """One evaluation of a sweep.

    Attributes:
        steps: Denoising steps.
        proposals: Boxes to start from.
        report: What was found.
    """

    steps: int
    proposals: int
    report: Summary

    def as_row(self) -> Row:
        """`steps`, `proposals`, and what `Report.as_dict` names."""
        return {"steps": self.steps, "proposals": self.proposals, **self.report.as_dict()}


def sweep(
    source: Source,
    split: Split,
    out: Path | None,
    options: Options,
    *,
    steps: Sequence[int],
    proposals: Sequence[int],
    limit: int | None = None,
    processes: int = 1,
    device: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Cell]:
    """Evaluate every pair of steps and proposals; finished ones are not predicted again.

    After each pair OUT/sweep.json and OUT/sweep.csv hold what is there.

    Args:
        source: The model.
        split: Annotated images.
        out: Gets a run folder per pair, OUT/cells/steps-S_proposals-P; None: nothing is kept.
        options: What all pairs share.
        steps: Numbers of steps; empty: the model's.
        proposals: Numbers of proposals; empty: the model's.
        limit: As in `run`.
        processes: As in `run`.
        device: As in `run`.
        progress: Called with (done, total), images of all pairs.

    Raises:
        ConfigError: A number is out of range; none is evaluated then.
        ValueError: As in `run`.
    """
    asked = request(source.model.config, split, options)
    pairs = sorted(set(product(steps or (asked.steps,), proposals or (asked.proposals,))))
    for s, p in pairs:
        request(source.model.config, split, replace(options, steps=s, proposals=p))
    cells: list[Cell] = []
    for i, (s, p) in enumerate(pairs):
        name = f"steps-{s}_proposals-{p}"
        found = run(
            source,
            split,
            None if out is None else out / "cells" / name,
            replace(options, steps=s, proposals=p),
            limit=limit,
            processes=processes,
            device=device,
            progress=progress and _of_all(progress, i, len(pairs)),
        )
        cells.append(Cell(s, p, Summary.of(found)))
        del found  # else the next pair's results come on top
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


def _of_all(
    progress: Callable[[int, int], None], before: int, pairs: int
) -> Callable[[int, int], None]:
    return lambda done, total: progress(before * total + done, pairs * total)
