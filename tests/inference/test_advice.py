"""Is a prediction that does not fit told what to lower, and by how much?"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffinst.config import Config, Options
from diffinst.inference.advice import advice
from diffinst.inference.predictor import DiffusionInst

PAPER = Options.of(Config.from_preset("r50-coco"), max_detections=500)


def test_everything_that_can_be_lowered_is_named() -> None:
    said = advice((800, 1216), 4, PAPER, exact=True)
    for part in (
        "fewer images at once (are 4; one takes 1/4)",
        "--precision bf16",
        "proposals (are 500",
        "max_detections (is 500)",
        "the network sees 800x1216 pixels; 608 takes about a quarter",
    ):
        assert part in said


def test_what_is_done_already_is_not_advised() -> None:
    lean = PAPER.model_copy(update={"max_detections": 100})
    said = advice((800, 1216), 1, lean, exact=False)
    assert "images at once" not in said and "bf16" not in said and "max_detections" not in said
    assert "proposals" in said and "long_side" in said


def test_predict_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = DiffusionInst.from_preset("tiny")
    model.config = model.config.updated(preprocess={"short_side": None, "zoom": 1.0})

    def fail(images: object) -> None:
        torch.empty(2**48)  # real memory that cannot be had

    monkeypatch.setattr(model.network, "features", fail)
    pixels = [np.zeros((40, 50, 3), np.uint8)] * 2
    with pytest.raises(MemoryError, match=r"^out of memory while predicting: use bf16") as error:
        model.predict(list(pixels))
    assert "sees 64x64 pixels; 32 takes" in str(error.value)
