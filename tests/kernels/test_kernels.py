"""Does the switch turn every kernel off, and on again?"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from diffinst import kernels
from diffinst.inference.predictor import DiffusionInst


def test_the_switch_holds_inside_alone() -> None:
    assert kernels.enabled()
    with kernels.plain():
        assert not kernels.enabled()
        with kernels.plain():
            assert not kernels.enabled()
        assert not kernels.enabled()
    assert kernels.enabled()
    with pytest.raises(RuntimeError), kernels.plain():
        raise RuntimeError
    assert kernels.enabled()


def test_the_environment_turns_them_off() -> None:
    code = "from diffinst import kernels; print(kernels.enabled())"
    for value, enabled in (("plain", "False"), ("", "True")):
        command = [sys.executable, "-c", code]
        done = subprocess.run(
            command, env={**os.environ, kernels.VARIABLE: value}, capture_output=True, text=True
        )
        assert done.stdout.strip() == enabled, done.stderr


def test_a_prediction_is_the_same_without_them() -> None:
    model = DiffusionInst.from_preset("tiny")
    image = torch.randint(256, (3, 60, 80), generator=torch.Generator().manual_seed(0))
    fast = model.predict(image.byte(), steps=2, threshold=0.0)
    with kernels.plain():
        plain = model.predict(image.byte(), steps=2, threshold=0.0)
    assert len(fast) == len(plain) > 3
    torch.testing.assert_close(fast.boxes, plain.boxes, rtol=0, atol=1e-3)
    torch.testing.assert_close(fast.scores, plain.scores, rtol=0, atol=1e-5)
