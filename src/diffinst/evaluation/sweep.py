"""What steps and proposals buy: AP and time over both, from one set of weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal, TypeAlias

from diffinst.config import SamplerConfig
from diffinst.datasets.split import Split
from diffinst.evaluation.curves import draw_sweep
from diffinst.evaluation.evaluate import Progress, evaluate
from diffinst.evaluation.outputs import write_csv
from diffinst.evaluation.prediction import SamplerKind, request
from diffinst.evaluation.report import ClassRow
from diffinst.evaluation.source import Source
from diffinst.io.atomic import write_json

Steps: TypeAlias = int | Literal["auto"]
Row: TypeAlias = dict[str, float | str | None]


@dataclass(frozen=True)
class Cell:
    """One evaluation of a sweep, without results and curves: all of them may not fit in memory.

    Attributes:
        steps: Denoising steps, or `auto`.
        proposals: Boxes to start from.
        kind: The sampler.
        values: What `Report.as_dict` says.
        classes: What `Report.class_rows` says.
        failed: One message per image that could not be predicted.
    """

    steps: Steps
    proposals: int
    kind: SamplerKind
    values: dict[str, float | None]
    classes: tuple[ClassRow, ...]
    failed: tuple[str, ...]

    def as_row(self) -> Row:
        """`steps`, `proposals`, `kind`, and what `Report.as_dict` names."""
        about: Row = {"steps": self.steps, "proposals": self.proposals, "kind": self.kind}
        return {**about, **self.values}


def sweep(
    source: Source,
    split: Split,
    out: Path | None = None,
    *,
    steps: Sequence[Steps] = (),
    proposals: Sequence[int] = (),
    max_detections: int | None = None,
    seed: int = 0,
    kinds: Sequence[SamplerKind] = (),
    noises: int = 1,
    single_class: bool = False,
    limit: int | None = None,
    processes: int = 1,
    device: str | None = None,
    progress: Progress | None = None,
) -> list[Cell]:
    """Evaluate all settings of steps, proposals, sampler; finished ones are not predicted again.

    After each setting OUT/sweep.json and OUT/sweep.csv hold what is there. One step is the same in
    all samplers, and evaluated once.

    Args:
        source: The model.
        split: Annotated images.
        out: Gets a run folder per setting, OUT/cells/steps-S_proposals-P with the sampler's name
            where there are several; None: nothing is kept.
        steps: Numbers of steps, or `auto`; empty: the model's.
        proposals: Numbers of proposals; empty: the model's.
        kinds: Samplers; empty: the model's.
        max_detections: As in `evaluate`, like the next six.
        seed: As there.
        noises: As there.
        single_class: As there.
        limit: As there.
        processes: As there.
        device: As there.
        progress: Called with (done, total), images of all settings.

    Raises:
        ConfigError: A number is out of range; none is evaluated then.
        ValueError: As in `evaluate`.
    """
    config = source.model.config
    settings = _settings(config.sampler, steps, proposals, kinds)
    for s, p, kind in settings:
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
    for i, (s, p, kind) in enumerate(settings):
        name = f"steps-{s}_proposals-{p}" + (f"_{kind}" if len(kinds) > 1 else "")
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
            out=None if out is None else out / "cells" / name,
            files=False,
            processes=processes,
            device=device,
            progress=progress and _of_all(progress, i, len(settings)),
        )
        rows = tuple(report.class_rows())
        cells.append(Cell(s, p, kind, report.as_dict(), rows, report.failed))
        del report  # else the next one's results come on top
        if out is not None:
            _write(cells, split, out)
    return cells


def _settings(
    usual: SamplerConfig,
    steps: Sequence[Steps],
    proposals: Sequence[int],
    kinds: Sequence[SamplerKind],
) -> list[tuple[Steps, int, SamplerKind]]:
    """Every combination once, numbers rising, the samplers in turn."""
    numbers = sorted(set(steps or (usual.steps,)), key=lambda s: (s == "auto", s))
    every = product(numbers, sorted(set(proposals or (usual.proposals,))), kinds or (usual.kind,))
    found = dict.fromkeys(every)
    first = next(iter(kinds), usual.kind)
    return [(s, p, kind) for s, p, kind in found if s != 1 or kind == first]


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
    write_rows(out / "sweep.csv", rows)


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows of the same fields as a table."""
    fields = list(rows[0])
    write_csv(path, fields, ([row[field] for field in fields] for row in rows))


def _of_all(progress: Progress, before: int, settings: int) -> Progress:
    return lambda done, total: progress(before * total + done, settings * total)
