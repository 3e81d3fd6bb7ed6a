"""The numbers of an evaluation or a benchmark on stdout, so that they can be piped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from diffinst.evaluation.report import ClassRow, Report
    from diffinst.evaluation.sweep import Cell, Row
    from diffinst.measure.benchmark import Measurement

MAX_CLASSES = 40  # shown; of more, the best and the worst half of these
_PIPED_WIDTH = 120


def print_metrics(report: Report) -> None:
    """One number a line."""
    for name, value in report.as_dict().items():
        print(f"{name:<20} " + ("undefined" if value is None else f"{value:.4f}"))


def print_classes(rows: Sequence[ClassRow], where: str) -> None:
    """One class a line, the best first.

    Args:
        rows: From `Report.class_rows`.
        where: What to say of classes that are not shown.
    """
    table = _table("class", "AP", "AP50", "box AP", "objects")
    half = MAX_CLASSES // 2
    shown = rows if len(rows) <= MAX_CLASSES else [*rows[:half], *_worst(rows[half:], half)]
    for i, row in enumerate(shown):
        if len(rows) > MAX_CLASSES and i == half:
            table.add_row(Text(f"... {len(rows) - len(shown)} more {where} ..."))
        table.add_row(
            Text(row.name), _cell(row.ap), _cell(row.ap50), _cell(row.box_ap), str(row.objects)
        )
    _console().print(table)


def print_sweep(cells: Sequence[Cell]) -> None:
    """One pair of steps and proposals a line."""
    table = _table("steps", "proposals", "mask AP", "AP50", "AP75", "box AP", "s/image")
    for cell in cells:
        values = cell.values
        named = ("mask/AP", "mask/AP50", "mask/AP75", "box/AP", "seconds_per_image")
        table.add_row(
            str(cell.steps), str(cell.proposals), *(_cell(values[name]) for name in named)
        )
    _console().print(table)


def print_curve(rows: Sequence[Row]) -> None:
    """One setting a line, the quickest first; a star for each that no other beats."""
    table = _table("", "sampler", "steps", "proposals", "mask AP", "AP50", "AP75", "s/image")
    for row in rows:
        about = [str(row[name]) for name in ("kind", "steps", "proposals")]
        named = ("mask/AP", "mask/AP50", "mask/AP75", "seconds_per_image")
        values = [None if row[name] is None else float(row[name] or 0) for name in named]
        table.add_row("*" if row["front"] else "", *about, *map(_cell, values))
    _console().print(table)


def print_benchmark(measurements: Sequence[Measurement]) -> None:
    """One workload a column: time in all, by part, the limit, memory."""
    table = _table("", *(_workload(m) for m in measurements))

    def row(name: str, values: Sequence[str]) -> None:
        table.add_row(name, *values)

    row("seconds (median)", [f"{m.median:.3f}" for m in measurements])
    row("from", [f"{min(m.seconds):.3f}" for m in measurements])
    row("to", [f"{max(m.seconds):.3f}" for m in measurements])
    row("images a second", [f"{m.workload.batch / m.median:.2f}" for m in measurements])
    for name in measurements[0].parts:
        seconds = [m.parts.get(name) for m in measurements]
        row(f"  {name}", ["" if s is None else f"{s:.3f}" for s in seconds])
    total = [(m.work.convolution + m.work.matmul) / 1e9 for m in measurements]
    row("GFLOP", [f"{gflop:.0f}" for gflop in total])
    row("seconds at this machine's peak", [f"{m.floor:.3f}" for m in measurements])
    row("times the limit", [f"{m.median / m.floor:.2f}" for m in measurements])
    if all(m.peak_gib is not None for m in measurements):
        row("peak GiB", [f"{m.peak_gib:.2f}" for m in measurements])
        row("of them before the first image", [f"{m.idle_gib:.2f}" for m in measurements])
    _console().print(table)


def _workload(measurement: Measurement) -> str:
    w = measurement.workload
    steps = f"{w.steps} step" + "s" * (w.steps != 1)
    precision = f"{w.precision}, compiled" if w.compiled else w.precision
    return f"{steps}\n{w.proposals} boxes\n{w.detections} kept\nbatch {w.batch}\n{precision}"


def _worst(rows: Sequence[ClassRow], count: int) -> Sequence[ClassRow]:
    """The last ones that have a number; those without objects only where there are no others."""
    scored = [row for row in rows if not math.isnan(row.ap)]
    return (scored or rows)[-count:]


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_PIPED_WIDTH)


def _cell(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.4f}"
