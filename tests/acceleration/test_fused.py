"""Do convolutions that activate on the way compute what they did, and only where they may?"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from diffinst import kernels
from diffinst.acceleration.fused import ACTIVATIONS, FusedConv2d, fuse_activations, onednn_can
from diffinst.acceleration.optimize import Precision, optimized
from diffinst.config import Config
from diffinst.models.network import DiffusionInstNetwork


def maps(channels: int = 3) -> Tensor:
    return torch.randn(1, channels, 12, 10, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("activation", [None, *(kind() for kind in ACTIVATIONS)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("groups", [1, 3])
def test_it_computes_the_convolution_and_its_activation(
    activation: nn.Module | None, dtype: torch.dtype, groups: int
) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 6, 3, stride=2, padding=1, groups=groups).to(dtype).requires_grad_(False)
    conv.weight.mul_(20)  # so that ReLU6 has something to cut
    fused, x = FusedConv2d(conv, activation), maps().to(dtype)
    wanted = conv(x) if activation is None else activation(conv(x))
    close = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(fused(x), wanted, rtol=close, atol=close)
    with kernels.plain():
        assert torch.equal(fused(x), wanted)


@pytest.mark.parametrize(("preset", "backbone"), [("nano", {}), ("tiny", {"name": "resnet50"})])
def test_activations_of_a_network_are_done_on_the_way(
    preset: str, backbone: dict[str, str]
) -> None:
    config = Config.from_preset(preset).updated(model={"backbone": backbone})
    network = DiffusionInstNetwork(config.model).eval()
    fast = optimized(network)
    fused = [m for m in fast.modules() if isinstance(m, FusedConv2d)]
    encoder = [*fast.backbone.modules(), *fast.mask_branch.modules()]
    left = {m for m in encoder if isinstance(m, ACTIVATIONS)} - {m.activation for m in fused}
    residuals = {m for name, m in fast.backbone.named_modules() if name.endswith("act3")}
    assert left == residuals and not any(type(m) is nn.Conv2d for m in fast.modules())
    assert len(fused) > 60 and sum(isinstance(m.activation, ACTIVATIONS) for m in fused) > 30
    assert not any(isinstance(m, FusedConv2d) for m in network.modules())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_optimized_can_be_optimized_again(precision: Precision) -> None:
    network = DiffusionInstNetwork(Config.from_preset("tiny").model)
    once = optimized(network, precision)
    pixels = torch.zeros(1, 3, 64, 64, dtype=once.backbone.dtype)
    twice = optimized(once, precision)
    torch.testing.assert_close(twice.features(pixels)[0], once.features(pixels)[0])


class Twice(nn.Module):
    """The output of its convolution is read by more than the activation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 4, 1), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        result: Tensor = self.act(y) + y
        return result


def test_an_output_that_is_read_twice_stays() -> None:
    network = Twice().eval().requires_grad_(False)
    before = network(maps())
    fuse_activations(network, lambda: [network(maps())])
    assert type(network.conv) is nn.Conv2d and type(network.act) is nn.ReLU
    assert torch.equal(network(maps()), before)


def test_other_devices_and_types_are_left_to_torch() -> None:
    weight = torch.zeros(1, 3, 1, 1)
    assert not onednn_can(maps().double(), weight.double())
    assert not onednn_can(maps(), weight.bfloat16())
    assert not onednn_can(maps().to("meta"), weight.to("meta"))
    assert not onednn_can(maps()[:0], weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert not onednn_can(maps(), weight)
