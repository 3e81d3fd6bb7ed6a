"""Does the table of bf16's accuracy say what its numbers say?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from diffinst import DiffusionInst
from diffinst.data.load import load_split
from diffinst.data.synthetic import make_shapes


@pytest.fixture(scope="module")
def precision(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("precision")


def test_means_over_seeds_and_all_boxes(precision: ModuleType) -> None:
    rows = [
        {"steps": 4, "seed": 0, "fp32": 0.50, "bf16": 0.498, "confident": 60, "same": 60},
        {"steps": 4, "seed": 1, "fp32": 0.52, "bf16": 0.521, "confident": 40, "same": 38},
        {"steps": 1, "seed": 0, "fp32": 0.40, "bf16": 0.40, "confident": 0, "same": 0},
    ]
    lines = precision.table(rows).splitlines()
    assert lines[2].startswith("| 1 | 0.4000 | 0.4000 | 0.00 |")
    four = "| 4 | 0.5100 | 0.5095 | -0.05 | -0.20 to 0.10 | >= -0.2 | 98 of 100 (98.0%) | >= 99% |"
    assert lines[3] == four


def test_a_model_agrees_with_itself(precision: ModuleType, tmp_path: Path) -> None:
    split = load_split(make_shapes(tmp_path, train=1, val=2), "val")
    model = DiffusionInst.from_preset("tiny")
    found = precision.compare(model, model, split, split.records, 1, 0)
    assert found["fp32"] == found["bf16"] and found["confident"] == found["same"]
