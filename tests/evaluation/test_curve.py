"""Is the front what no other setting beats, and is it written in all three forms?"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from diffinst.datasets.split import Split
from diffinst.evaluation.curve import curve_rows, on_front, write_curve
from diffinst.evaluation.source import Source
from diffinst.evaluation.sweep import Cell, Row, sweep
from diffinst.inference.front import Front


def row(seconds: float, ap: float | None) -> Row:
    return {"seconds_per_image": seconds, "mask/AP": ap}


def test_the_front_by_hand() -> None:
    # 0.3 costs more than 0.4; of two of 0.5 the quicker one; of two of 1 s the better one
    rows = [row(3, 0.5), row(1, 0.4), row(2, 0.3), row(4, 0.5), row(1, 0.2), row(0.5, None)]
    assert on_front(rows) == [True, True, False, False, False, False]
    assert on_front([]) == [] and on_front([row(1, 0.0)]) == [True]


def cell(steps: int, proposals: int, seconds: float, ap: float) -> Cell:
    values: dict[str, float | None] = {"mask/AP": ap, "seconds_per_image": seconds}
    return Cell(steps, proposals, "search", values, (), ())


def test_rows_are_sorted_by_time() -> None:
    rows = curve_rows([cell(4, 100, 0.4, 0.6), cell(1, 100, 0.1, 0.4), cell(2, 100, 0.5, 0.5)])
    assert [(r["steps"], r["front"]) for r in rows] == [(1, 1.0), (4, 1.0), (2, 0.0)]


def test_files_of_measured_settings(source: Source, shapes: Split, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    cells = sweep(
        source, shapes, steps=("auto", 2, 1), proposals=(4,), kinds=("search", "ddim"), limit=1
    )
    named = [(c.steps, c.kind) for c in cells]
    auto = [("auto", "search"), ("auto", "ddim")]
    assert named == [(1, "search"), (2, "search"), (2, "ddim"), *auto]  # one step is one step
    assert write_curve(cells, shapes, tmp_path, title="t", device="cpu") == []
    held = json.loads((tmp_path / "curve.json").read_text())
    assert held["title"] == "t" and len(held["rows"]) == 5
    lines = list(csv.DictReader((tmp_path / "curve.csv").read_text().splitlines()))
    assert [line["steps"] for line in lines] == [str(r["steps"]) for r in held["rows"]]
    assert (tmp_path / "curve.png").stat().st_size > 1000
    assert len(Front.read(tmp_path).rows) == 3
