"""Is a RoI kernel taken only where it computes the same and is faster?"""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor

from diffinst.kernels import plain, roi
from diffinst.kernels.roi import kernel_pays, pool_by, proven
from diffinst.ops import roi_align
from diffinst.structures import Levels, Pyramid

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
            levels, shapes = Levels(heights, widths, starts, scales), ((1, rows),)
            pyramid = Pyramid(table.view(len(boxes), rows, -1), shapes, levels)
            self.known = roi_align.pool(pyramid, boxes, size, sampling) + self.error
        time.sleep(self.wait)
        return self.known


def test_a_right_and_faster_kernel_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roi, "ROUNDS", 2)
    kernel = Remembered()
    assert proven(kernel, CPU, torch.float32)
    assert not proven(Remembered(wait=1.0), CPU, torch.float32)


def test_wrong_features_are_refused() -> None:
    with pytest.warns(UserWarning, match=r"not used: its features are up to 0\.\d+ away"):
        assert not proven(Remembered(error=0.1), CPU, torch.float32)
    with pytest.warns(UserWarning, match="up to nan away"):
        assert not proven(Remembered(error=float("nan")), CPU, torch.float32)


def test_a_kernel_that_does_not_compile_is_refused() -> None:
    def broken(*_: object) -> Tensor:
        raise RuntimeError("ptxas is missing\nand more")

    with pytest.warns(UserWarning, match="not used: RuntimeError: ptxas is missing$"):
        assert not proven(broken, CPU, torch.float32)


def test_without_a_gpu_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roi, "proven", lambda *_: pytest.fail("nothing to try"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not kernel_pays(CPU, torch.float32)
    assert not kernel_pays(torch.device("cuda:7"), torch.float32)


def test_a_gradient_is_the_weighted_gathers(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Remembered(error=1.0)
    monkeypatch.setattr(roi, "kernel_pays", lambda device, dtype: True)
    monkeypatch.setattr(roi, "_kernel", lambda: kernel)
    maps = [torch.ones(1, 2, 8, 8), torch.ones(1, 2, 4, 4)]
    boxes = torch.tensor([[[4.0, 4.0, 20.0, 20.0]]])
    assert roi.pool(Pyramid.of(maps), boxes, 2, 2).unique().tolist() == [2.0]
    assert pool_by(kernel, Pyramid.of(maps), boxes, 2, 2).unique().tolist() == [2.0]
    learning = [m.requires_grad_() for m in maps]
    assert roi.pool(Pyramid.of(learning), boxes, 2, 2).unique().tolist() == [1.0]


def test_the_switch_turns_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roi, "kernel_pays", lambda device, dtype: True)
    monkeypatch.setattr(roi, "_kernel", lambda: Remembered(error=1.0))
    pyramid, boxes = Pyramid.of([torch.ones(1, 2, 8, 8)]), torch.tensor([[[4.0, 4, 20, 20]]])
    with plain():
        assert roi.pool(pyramid, boxes, 2, 2).unique().tolist() == [1.0]
    assert roi.pool(pyramid, boxes, 2, 2).unique().tolist() == [2.0]


def test_one_image_expanded_is_read_by_the_gather(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel wants a table of its own for each image."""
    monkeypatch.setattr(roi, "kernel_pays", lambda device, dtype: True)
    monkeypatch.setattr(roi, "_kernel", lambda: Remembered(error=1.0))
    maps = torch.arange(64.0).view(1, 1, 8, 8)
    boxes = torch.tensor([[[4.0, 4.0, 20.0, 20.0]], [[0.0, 0.0, 16.0, 16.0]]])
    one = Pyramid.of([maps])
    expanded = Pyramid(one.table.expand(2, -1, -1), one.shapes, one.levels)
    wanted = roi_align.pool(Pyramid.of([maps.repeat(2, 1, 1, 1)]), boxes, 2, 2)
    torch.testing.assert_close(roi.pool(expanded, boxes, 2, 2), wanted)
