"""Are operations counted as by hand, and what do they take at a machine's peaks?"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from diffinst.acceleration.fused import FusedConv2d
from diffinst.kernels import linear
from diffinst.measure.limits import Limits, Work, count, measure_limits


def test_operations_by_hand() -> None:
    def run() -> None:
        # 2 * 9 products and sums for each of 4 x 5 x 6 outputs, from 3 channels
        F.conv2d(torch.ones(1, 3, 5, 6), torch.ones(4, 3, 3, 3), padding=1)
        torch.ones(7, 8) @ torch.ones(8, 9)
        torch.ones(10).exp()  # what is no product is not counted

    assert count(run) == Work(2 * 9 * 3 * 4 * 5 * 6, 2 * 7 * 8 * 9)


@pytest.mark.parametrize("onednn", [True, False])
def test_linear_layers_count_whichever_library_computes_them(
    monkeypatch: pytest.MonkeyPatch, onednn: bool
) -> None:
    monkeypatch.setattr(linear, "_mkl_holds_back", lambda: onednn)
    x, weight = torch.ones(2, 5, 8), torch.ones(9, 8)
    forward = 2 * 10 * 8 * 9
    assert count(lambda: linear.linear(x, weight, torch.ones(9))) == Work(0, forward)
    learning = weight.requires_grad_()
    both = count(lambda: linear.linear(x, learning, None).sum().backward())
    assert both == Work(0, 2 * forward)  # the input gets no gradient


def test_convolutions_that_activate_on_the_way_count_as_others() -> None:
    conv = nn.Conv2d(4, 6, 3, padding=1, groups=2).requires_grad_(False)
    fused, maps = FusedConv2d(conv, nn.ReLU()), torch.ones(1, 4, 8, 7)
    assert count(lambda: fused(maps)) == count(lambda: conv(maps)) == Work(2 * 6 * 8 * 7 * 2 * 9, 0)


def test_nothing_is_no_work() -> None:
    assert count(lambda: None) == Work(0, 0)


def test_the_floor_adds_both_kinds() -> None:
    assert Limits(convolution=100, matmul=10, bandwidth=1).floor(Work(200, 30)) == 2 + 3


def test_a_machine_has_peaks() -> None:
    limits = measure_limits(torch.device("cpu"), torch.float32)
    assert min(limits.convolution, limits.matmul) > 1e8 and limits.bandwidth > 1e8
