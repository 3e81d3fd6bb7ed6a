"""Is a RoI kernel taken only where it computes the same and is faster?"""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor

from diffinst.kernels.choice import proven, roi_kernel
from diffinst.ops import roi_align
from diffinst.ops.roi_align import FeatureTable

CPU = torch.device("cpu")


class Remembered:
    """The plain features, after a wait; the second time of a look-up."""

    def __init__(self, wait: float = 0.0, error: float = 0.0) -> None:
        self.wait, self.error = wait, error
        self.known: Tensor | None = None

    def __call__(
        self,
        table: Tensor,
        boxes: Tensor,
        level: Tensor,
        heights: Tensor,
        widths: Tensor,
        starts: Tensor,
        scales: Tensor,
        rows: int,
        size: int,
        sampling: int,
    ) -> Tensor:
        if self.known is None:
            plain = FeatureTable([torch.zeros(len(boxes), 1, 1, 1)])
            plain.table, plain.rows = table, rows
            plain.levels = roi_align.Levels(heights, widths, starts, scales)
            self.known = plain.pool(boxes, size, sampling) + self.error
        time.sleep(self.wait)
        return self.known


def test_a_right_and_faster_kernel_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roi_choice, "ROUNDS", 2)
    kernel = Remembered()
    assert proven(kernel, CPU, torch.float32) is kernel
    assert proven(Remembered(wait=1.0), CPU, torch.float32) is None


def test_wrong_features_are_refused() -> None:
    with pytest.warns(UserWarning, match=r"not used: its features are up to 0\.\d+ away"):
        assert proven(Remembered(error=0.1), CPU, torch.float32) is None
    with pytest.warns(UserWarning, match="up to nan away"):
        assert proven(Remembered(error=float("nan")), CPU, torch.float32) is None


def test_a_kernel_that_does_not_compile_is_refused() -> None:
    def broken(*_: object) -> Tensor:
        raise RuntimeError("ptxas is missing\nand more")

    with pytest.warns(UserWarning, match="not used: RuntimeError: ptxas is missing$"):
        assert proven(broken, CPU, torch.float32) is None


def test_without_a_gpu_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roi_choice, "proven", lambda *_: pytest.fail("nothing to try"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert roi_kernel(CPU, torch.float32) is None
    assert roi_kernel(torch.device("cuda:7"), torch.float32) is None


def test_a_gradient_is_the_weighted_gathers() -> None:
    kernel = Remembered(error=1.0)
    maps = [torch.ones(1, 2, 8, 8), torch.ones(1, 2, 4, 4)]
    boxes = torch.tensor([[[4.0, 4.0, 20.0, 20.0]]])
    assert FeatureTable(maps, kernel).pool(boxes, 2, 2).unique().tolist() == [2.0]
    learning = [m.requires_grad_() for m in maps]
    assert FeatureTable(learning, kernel).pool(boxes, 2, 2).unique().tolist() == [1.0]
