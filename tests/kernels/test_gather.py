"""Do gathers and samples give the numbers and gradients of their plain forms?"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from diffinst import kernels
from diffinst.kernels.gather import sample_at, weighted_gather
from diffinst.ops.masks import map_points


@pytest.fixture(autouse=True, params=["kernel", "plain"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the backward pass of ours, and with torch's."""
    monkeypatch.setattr(kernels, "_off", [request.param == "plain"])
    return str(request.param)


def test_weighted_gather_by_hand() -> None:
    table = torch.tensor([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
    index, weight = torch.tensor([[0, 2], [1, 1]]), torch.tensor([[0.5, 2.0], [1.0, -1.0]])
    assert weighted_gather(table, index, weight).tolist() == [[6.5, 65], [0, 0]]


def test_weighted_gather_gradient_is_exact() -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(6, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    index = torch.randint(0, 5, (7, 4), generator=generator)  # rows repeat; the last is never read
    weight = torch.randn(7, 4, dtype=torch.float64, generator=generator)
    assert torch.autograd.gradcheck(lambda t: weighted_gather(t, index, weight), table)


def test_sample_at_by_hand() -> None:
    maps = torch.tensor([[0.0, 4.0], [8.0, 12.0]]).view(1, 1, 2, 2).repeat(2, 1, 1, 1)
    maps[1] += 100
    points = torch.tensor([[[2.0, 2.0], [4.0, 2.0], [4.0, 4.0], [-50.0, 500.0]]]).repeat(2, 1, 1)
    sampled = sample_at(maps, points, torch.tensor([0, 1]))
    assert sampled[:, 0].tolist() == [[0, 2, 6, 8], [100, 102, 106, 108]]


def test_sample_at_cells_is_the_map() -> None:
    maps = torch.randn(2, 3, 4, 5)
    points = map_points((4, 5), maps.device)[None]
    sampled = sample_at(maps, points, torch.tensor([1]))
    torch.testing.assert_close(sampled[0], maps[1].flatten(1))
    nothing = sample_at(maps, points[:0], torch.zeros(0, dtype=torch.int64))
    assert nothing.shape == (0, 3, 20)


@settings(max_examples=30)
@given(st.integers(0, 2**31))
def test_sample_at_equals_grid_sample(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(1, 2, 4, 6, generator=generator, dtype=torch.float64)
    points = torch.rand(1, 9, 2, generator=generator) * 40 - 8
    cells = (points.double() - 2) / 4
    unit = (cells + 0.5) / torch.tensor([6.0, 4.0]) * 2 - 1
    wanted = F.grid_sample(maps, unit[:, None], padding_mode="border", align_corners=False)[:, :, 0]
    sampled = sample_at(maps, points, torch.tensor([0]))
    torch.testing.assert_close(sampled, wanted, rtol=0, atol=1e-5)


def test_sample_at_has_an_exact_gradient() -> None:
    maps = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    points = torch.tensor([[[3.0, 5.0], [9.5, 1.0]]])
    assert torch.autograd.gradcheck(lambda m: sample_at(m, points, torch.tensor([1])), maps)


def test_sample_at_keeps_bf16() -> None:
    sampled = sample_at(torch.ones(1, 2, 3, 3).bfloat16(), torch.rand(1, 4, 2), torch.tensor([0]))
    assert sampled.dtype == torch.bfloat16
    assert sampled.float().tolist() == [[[1.0] * 4] * 2]
