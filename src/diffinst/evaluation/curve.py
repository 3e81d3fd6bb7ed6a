"""AP over seconds: every setting measured, and which of them no other beats."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from diffinst.datasets.split import Split
from diffinst.evaluation.curves import draw_curve
from diffinst.evaluation.sweep import Cell, Row, write_rows
from diffinst.inference.front import FRONT_FILE
from diffinst.io.atomic import write_json
from diffinst.kernels.machine import machine


def on_front(rows: Sequence[Row]) -> list[bool]:
    """Of each row, whether no other has at least its AP in no more time.

    Args:
        rows: `mask/AP` and `seconds_per_image` of each; those without AP are not on it.
    """

    def place(i: int) -> tuple[float, float]:
        return float(rows[i]["seconds_per_image"] or 0), -float(rows[i]["mask/AP"] or 0)

    known = sorted((i for i, row in enumerate(rows) if row["mask/AP"] is not None), key=place)
    bests = accumulate((-place(i)[1] for i in known), max, initial=-1.0)
    front = {i for i, best in zip(known, bests, strict=False) if -place(i)[1] > best}
    return [i in front for i in range(len(rows))]


def curve_rows(cells: Sequence[Cell]) -> list[Row]:
    """What a sweep found, the quickest first, with `front`: 1 for what no other beats, else 0."""
    rows = [cell.as_row() for cell in cells]
    rows.sort(key=lambda row: float(row["seconds_per_image"] or 0))
    return [{**row, "front": float(f)} for row, f in zip(rows, on_front(rows), strict=True)]


def write_curve(
    cells: Sequence[Cell], split: Split, out: Path, *, title: str, device: str
) -> list[str]:
    """Write OUT/curve.json, curve.csv and curve.png; says why if that cannot be drawn.

    Beside weights, curve.json tells predictions with `seconds` what to choose.

    Args:
        cells: From `sweep`.
        split: What they were measured on.
        out: The folder.
        title: Of the drawing.
        device: What the times were measured on.
    """
    rows = curve_rows(cells)
    about = {"title": title, "split": split.name, "machine": machine(device)}
    write_json(out / FRONT_FILE, {**about, "rows": rows})
    write_rows(out / "curve.csv", rows)
    try:
        draw_curve(rows, out / "curve.png", title=title)
    except ImportError as error:
        return [f"curve.png is missing: {error}"]
    return []
