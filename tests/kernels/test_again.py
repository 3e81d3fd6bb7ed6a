"""Is what backward makes again the same, counted once, and not kept?"""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from diffinst import kernels
from diffinst.kernels.again import again, by_convolutions


def block() -> list[nn.Module]:
    return [nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(inplace=True)]


def tower() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*block(), *block(), nn.Conv2d(3, 2, 1))


def learned(layers: nn.Sequential, x: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Result, gradients, and statistics of one backward pass."""
    x = x.clone().requires_grad_()
    made = by_convolutions(x, layers)
    made.square().sum().backward()
    gradients = [t.grad for t in (x, *layers.parameters()) if t.grad is not None]
    return made, gradients, list(layers.buffers())


@pytest.mark.parametrize("training", [True, False])
def test_results_gradients_and_statistics_are_the_same(training: bool) -> None:
    layers = tower().train(training)
    plainly, x = deepcopy(layers), torch.randn(2, 3, 5, 4)
    with kernels.plain():
        expected = learned(plainly, x)
    found = learned(layers, x)
    assert len(found[1]) == 1 + 2 * 4 + 2
    for some, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(some, wanted, rtol=1e-6, atol=1e-6)
    assert [int(n) for n in layers.buffers() if n.ndim == 0] == [int(training)] * 2  # counted once


def test_only_results_of_convolutions_are_kept() -> None:
    layers, x = tower(), torch.randn(2, 3, 50, 40)

    def keep(tensor: Tensor) -> Tensor:
        if tensor.shape[-2:] == (50, 40):
            kept.add(tensor.data_ptr())
            held.append(tensor)  # no address is used twice
        return tensor

    for plain, count in ((True, 5), (False, 3)):
        kept: set[int] = set()
        held: list[Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            made = layers(x) if plain else by_convolutions(x, layers)
        # x, two results of convolutions, and in the plain way two of ReLUs
        assert len(kept) == count
        made.sum().backward()


def test_nothing_is_made_again_without_kernels_or_gradients() -> None:
    calls = []

    def twice(x: Tensor) -> Tensor:
        calls.append(len(x))
        return (2 * x).square()

    x = torch.ones(3, requires_grad=True)
    with torch.no_grad():
        again(twice, x)
    with kernels.plain():
        again(twice, x).sum().backward()
    assert calls == [3, 3]
    again(twice, x).sum().backward()
    assert calls == [3, 3, 3, 3]
    assert x.grad is not None and x.grad.tolist() == [16.0] * 3  # 8 x, two times
