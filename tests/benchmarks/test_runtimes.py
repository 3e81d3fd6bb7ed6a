"""Does the table of runtimes say what its numbers say, and is an exported model scored as ours?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from diffinst.datasets.load import load_split
from diffinst.datasets.synthetic import make_shapes
from diffinst.export.parity import common
from diffinst.inference.predictor import DiffusionInst


@pytest.fixture(scope="module")
def runtimes(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("runtimes")


def test_ratios_are_taken_within_a_round(
    runtimes: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def row(ap: float, same: int, seconds: list[float]) -> dict[str, object]:
        return {"AP": ap, "AP50": 0.8, "confident": 40, "same": same, "seconds": seconds}

    content = {
        "machine": {"device": "abacus", "threads": 2, "torch": "9"},
        "model": "nano-nuclei",
        "size": [256, 320],
        "images": 3,
        "proposals": 500,
        "rows": {
            runtimes.BASE: row(0.5, 40, [1.0, 2.0, 4.0]),
            "OpenVINO int8": row(0.49, 39, [0.5, 1.0, 3.0]),
        },
    }
    (tmp_path / "runtimes.json").write_text(json.dumps(content))
    runtimes.table(results=tmp_path)
    text = (tmp_path / "runtimes.md").read_text()
    assert text.strip() == capsys.readouterr().out.strip()
    assert "abacus, 2 threads, torch 9; nano-nuclei, 3 images of 256 x 320" in text
    assert "| OpenVINO int8 | 0.490 | 0.800 | 39 of 40 | 1.000 | 0.50 | 0.50-0.75 |" in text


@pytest.mark.usefixtures("unchecked_shapes")
def test_an_exported_model_is_scored_like_the_original(
    runtimes: ModuleType, tmp_path: Path
) -> None:
    split = load_split(make_shapes(tmp_path / "data", train=0, val=2, size=(48, 64)), "val")
    plain = DiffusionInst.from_preset("tiny")
    config = plain.config.updated(
        sampler={"steps": 1, "proposals": 12},
        postprocess={"threshold": 0.0},
        preprocess={"short_side": None, "zoom": 1.0},  # fitting would round to whole grey levels
    )
    generator = torch.Generator().manual_seed(0)
    for stage in plain.network.decoder.stages:  # scores that differ
        weight = stage.get_parameter("class_logits.weight")
        torch.nn.init.normal_(weight, std=0.5, generator=generator)
        torch.nn.init.zeros_(stage.get_parameter("class_logits.bias"))
    model = DiffusionInst(plain.network, config)
    records = runtimes.of_size(split, (48, 64))
    assert len(records) == 2 and runtimes.of_size(split, (64, 48)) == []
    way = runtimes.exported(model, tmp_path / "out", "torch-export", (48, 64), ())
    wanted = model.optimize("fp32").predict(records[0].path)
    found = way(records[0].path)
    assert found.image_size == wanted.image_size == (48, 64)
    confident, same, extra = common(wanted, found, 0.3)
    assert same == confident >= 3 and extra == 0
