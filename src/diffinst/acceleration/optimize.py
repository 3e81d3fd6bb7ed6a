"""Make a network ready to predict: norms folded, weights laid out and typed for the machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from copy import deepcopy
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from diffinst.acceleration.fused import fuse_activations
from diffinst.models.backbone import Backbone
from diffinst.models.decoder import TimeEmbedding
from diffinst.models.frozen_norm import FrozenNormConv2d
from diffinst.models.linear import OutputLinear
from diffinst.models.network import DiffusionInstNetwork

Precision = Literal["fp32", "bf16", "auto"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "auto")
PROBE_SIDE, PROBE_ROUNDS = 512, 3
WORTH_IT = 0.8  # `auto` takes bf16 where a probe needs at most so much of the float32 time
PLAIN_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)  # timm's have an activation inside
EXACT = (OutputLinear, TimeEmbedding, nn.modules.batchnorm._BatchNorm)  # stay float32


def optimized(network: DiffusionInstNetwork, precision: Precision = "fp32") -> DiffusionInstNetwork:
    """A copy that predicts the same, faster; it cannot be trained or saved.

    Args:
        network: Stays as it is.
        precision: `fp32`: results agree to rounding (1e-3 of a pixel); `bf16`: backbone,
            pyramid, mask branch and decoder in bfloat16, scores, boxes and filters in float32, and
            a backbone in which `rounding_hurts`, too; `auto`: bf16 where this machine is faster
            with it.

    Raises:
        ValueError: No such precision.
    """
    chosen = resolved(precision, network.image_mean.device)
    copy = deepcopy(network).eval().requires_grad_(False)
    _fold_norms(copy)
    if copy.image_mean.device.type == "cpu":
        probe = torch.linspace(-2, 2, 3 * 64 * 64).view(1, 3, 64, 64).to(copy.backbone.dtype)
        fuse_activations(copy, lambda: copy.features(probe))
    if chosen == "bf16":
        exact = (*EXACT, Backbone) if rounding_hurts(network.backbone) else EXACT
        for module in _inexact(copy, exact):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.bfloat16()
    return copy.to(memory_format=torch.channels_last)


def _fold_norms(network: DiffusionInstNetwork) -> None:
    """Each norm that a convolution can take over becomes part of its weights, in place."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, FrozenNormConv2d):
                setattr(parent, name, child.merged())
        if isinstance(parent, nn.Sequential):
            for i, (first, second) in enumerate(zip(parent, list(parent)[1:], strict=False)):
                if type(first) is nn.Conv2d and type(second) in PLAIN_NORMS:
                    assert isinstance(second, nn.modules.batchnorm._BatchNorm)
                    parent[i], parent[i + 1] = fuse_conv_bn_eval(first, second), nn.Identity()


def rounding_hurts(backbone: Backbone) -> bool:
    """Whether it is of the MobileNet and EfficientNet kind: depthwise convolutions and BatchNorm.

    In bfloat16 they cost 0.2 points of AP at four steps, the rest of the network next to nothing.
    """
    parts = list(backbone.modules())
    convolutions = (m for m in parts if isinstance(m, nn.Conv2d))
    depthwise = any(m.groups == m.in_channels > 1 for m in convolutions)
    norms = (FrozenNormConv2d, nn.modules.batchnorm._BatchNorm)
    return depthwise and any(isinstance(m, norms) for m in parts)


def _inexact(module: nn.Module, exact: tuple[type[nn.Module], ...]) -> Iterator[nn.Module]:
    """All modules but those that stay float32, and what lies inside these."""
    if isinstance(module, exact):
        return
    yield module
    for child in module.children():
        yield from _inexact(child, exact)


def resolved(precision: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    """What `auto` means on a device.

    Raises:
        ValueError: No such precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r}: allowed are {', '.join(PRECISIONS)}")
    if precision != "auto":
        return precision
    return "bf16" if bf16_pays(str(device)) else "fp32"


@lru_cache
def bf16_pays(device: str) -> bool:
    """Whether bfloat16 is clearly faster than float32 here.

    On a CPU a matrix and a 3x3 convolution are timed; GPUs that have it are taken at their word.

    Args:
        device: Where.
    """
    if device != "cpu":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    seconds = {dtype: _probe(dtype) for dtype in (torch.float32, torch.bfloat16)}
    return seconds[torch.bfloat16] <= WORTH_IT * seconds[torch.float32]


@torch.inference_mode()
def _probe(dtype: torch.dtype) -> float:
    """Seconds of the quickest of a few rounds."""
    matrix = torch.ones(PROBE_SIDE, PROBE_SIDE, dtype=dtype)
    maps = torch.ones(1, 64, 64, 64, dtype=dtype).to(memory_format=torch.channels_last)
    kernel = torch.ones(64, 64, 3, 3, dtype=dtype)

    def once() -> float:
        begin = time.perf_counter()
        _work(matrix, maps, kernel)
        return time.perf_counter() - begin

    once()
    return min(once() for _ in range(PROBE_ROUNDS))


def _work(matrix: Tensor, maps: Tensor, kernel: Tensor) -> None:
    matrix @ matrix
    F.conv2d(maps, kernel, padding=1)
