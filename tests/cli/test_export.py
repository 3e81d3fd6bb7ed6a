"""Does `diffinst export` write a model and compare it, and refuse what goes with no runtime?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from diffinst.inference.predictor import DiffusionInst

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")
Run = Callable[..., tuple[int, str, str]]


@pytest.mark.usefixtures("unchecked_shapes")
def test_a_model_is_exported_and_compared(diffinst: Run, shapes: Path, tmp_path: Path) -> None:
    model = DiffusionInst.from_preset("tiny").save_pretrained(tmp_path / "model")
    out = tmp_path / "out"
    flags = ("--size", "64x96", "--steps", 1, "--proposals", 8, "--out", out)
    check = ("--check", shapes / "val", "--limit", 1)
    code, _, err = diffinst("export", model, "--to", "torch-export", *flags, *check)
    assert code == 0 and f"written: {out}" in err and "confident instances on 1 images" in err
    assert json.loads((out / "export.json").read_text())["size"] == [64, 96]
    code, _, err = diffinst("export", model, "--to", "onnx", *flags, "--int8", shapes / "val")
    assert code == 1 and "--int8 is for openvino" in err
