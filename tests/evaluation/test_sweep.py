"""Every pair is evaluated once, kept, and what a single evaluation gives."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from diffinst.config import ConfigError
from diffinst.datasets.split import Split
from diffinst.evaluation.evaluate import evaluate
from diffinst.evaluation.source import Source
from diffinst.evaluation.sweep import sweep, write_sweep_curves


def test_pairs_files_and_going_on(source: Source, shapes: Split, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    cells = sweep(
        source,
        shapes,
        tmp_path,
        steps=(2, 1, 2),
        proposals=(6, 4),
        max_detections=5,
        limit=2,
        progress=lambda *call: calls.append(call),
    )
    pairs = [(1, 4), (1, 6), (2, 4), (2, 6)]
    assert [(cell.steps, cell.proposals) for cell in cells] == pairs
    assert calls[0] == (0, 8) and calls[-1] == (8, 8) and sorted(calls) == calls
    for cell in cells:
        alone = evaluate(
            source, shapes, steps=cell.steps, proposals=cell.proposals, max_detections=5, limit=2
        )
        assert list(cell.classes) == alone.class_rows() and cell.failed == ()
        row, expected = cell.as_row(), alone.as_dict()
        different = {key for key in expected if row[key] != expected[key]}
        assert different <= {"seconds_per_image"}
    content = json.loads((tmp_path / "sweep.json").read_text())
    assert content["split"] == "val" and content["rows"] == [cell.as_row() for cell in cells]
    rows = list(csv.DictReader((tmp_path / "sweep.csv").read_text().splitlines()))
    assert [(int(row["steps"]), int(row["proposals"])) for row in rows] == pairs
    assert "mask/AP" in rows[0]

    lines = {p: p.read_bytes() for p in tmp_path.glob("cells/*/predictions/*.jsonl")}
    assert len(lines) == 4
    more = sweep(
        source,
        shapes,
        tmp_path,
        steps=(1, 2, 3),
        proposals=(4, 6),
        max_detections=5,
        limit=2,
    )
    assert len(more) == 6
    now = {p: p.read_bytes() for p in tmp_path.glob("cells/*/predictions/*.jsonl")}
    assert len(now) == 6 and lines.items() <= now.items()


def test_one_axis_may_be_left_to_the_model(source: Source, shapes: Split) -> None:
    (cell,) = sweep(source, shapes, None, max_detections=5, steps=(), proposals=(4,), limit=1)
    assert (cell.steps, cell.proposals) == (source.model.config.sampler.steps, 4)


def test_all_numbers_are_checked_before_any_is_evaluated(
    source: Source, shapes: Split, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"steps"):
        sweep(source, shapes, tmp_path, steps=(1, 0), proposals=(4,))
    assert list(tmp_path.iterdir()) == []


def test_curves_of_a_sweep(source: Source, shapes: Split, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    cells = sweep(source, shapes, None, max_detections=5, steps=(1,), proposals=(4,), limit=1)
    assert write_sweep_curves(cells, tmp_path, title="t") == []
    assert (tmp_path / "sweep.png").stat().st_size > 1000
