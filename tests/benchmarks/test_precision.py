"""Does the table of bf16's accuracy say what its numbers say?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from diffinst import DiffusionInst
from diffinst.datasets.load import load_split
from diffinst.datasets.synthetic import make_shapes


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


def test_a_model_agrees_with_itself_and_not_with_another(
    precision: ModuleType, tmp_path: Path
) -> None:
    split = load_split(make_shapes(tmp_path, train=1, val=2), "val")
    model, other = (DiffusionInst.from_preset("tiny", seed=seed) for seed in (0, 1))
    for one in (model, other):  # fresh weights have no opinion: give them one
        torch.nn.init.constant_(
            one.network.decoder.stages[-1].get_parameter("class_logits.bias"), 2.0
        )
    same, apart = (precision.compare(model, m, split, split.records, 1, 0) for m in (model, other))
    assert same["confident"] == same["same"] == apart["confident"] > 0
    assert apart["same"] < apart["confident"]
