"""Convolutions that do the activation behind them on the way, by oneDNN on x86 processors.

An activation of its own reads and writes a whole map again. For 1x1 convolutions on one thread
torch takes a plain product, which is slower on maps whose channels lie together.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeAlias

import torch
from torch import Tensor, nn

from diffinst import kernels
from diffinst.models.frozen_norm import geometry, replace_module

Pointwise: TypeAlias = tuple[str, list[float], str]
"""An activation as oneDNN's operator takes it: name, numbers, variant."""
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.SiLU)


class FusedConv2d(nn.Conv2d):
    """A convolution and the activation behind it; not to be trained.

    Args:
        conv: Its weights are taken over.
        activation: ReLU, ReLU6 or SiLU; None: none.
    """

    def __init__(self, conv: nn.Conv2d, activation: nn.Module | None) -> None:
        super().__init__(**geometry(conv), bias=conv.bias is not None, device="meta")
        self.weight, self.bias = conv.weight, conv.bias
        self.activation = nn.Identity() if activation is None else activation
        self._pointwise = pointwise(activation)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the convolution's output, activated."""
        if torch.compiler.is_compiling() or not kernels.enabled() or not onednn_can(x, self.weight):
            active: Tensor = self.activation(self._conv_forward(x, self.weight, self.bias))
            return active
        result: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups,
            *self._pointwise,
        )  # fmt: skip
        return result


def pointwise(activation: nn.Module | None) -> Pointwise:
    """How oneDNN calls an activation of `ACTIVATIONS`."""
    match activation:
        case nn.ReLU():
            return "relu", [], ""
        case nn.ReLU6():
            return "hardtanh", [0.0, 6.0], ""
        case nn.SiLU():
            return "swish", [], ""
        case _:
            return "none", [], ""


def onednn_can(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN does a convolution of these here."""
    if x.device.type != "cpu" or x.dtype != weight.dtype or not x.numel():
        return False
    if not torch.backends.mkldnn.enabled or torch.is_autocast_enabled("cpu"):
        return False
    return x.dtype in _dtypes()


@lru_cache
def _dtypes() -> tuple[torch.dtype, ...]:
    names = ("_convolution_pointwise", "_is_mkldnn_bf16_supported")
    if not (
        platform.machine() in ("x86_64", "AMD64")
        and torch.backends.mkldnn.is_available()
        and all(hasattr(torch.ops.mkldnn, name) for name in names)
    ):
        return ()
    rounded = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return (torch.float32, torch.bfloat16) if rounded else (torch.float32,)


@torch.no_grad()
def fuse_activations(network: nn.Module, run: Callable[[], Sequence[Tensor]]) -> None:
    """Let every plain convolution of a network do the activation behind it, in place.

    Which activation reads which convolution's output, unchanged, is found by a run; another one
    checks that the network still computes the same, else it stays as it was.

    Args:
        network: In eval mode; norms behind convolutions are folded.
        run: Runs it on something small.
    """
    names = {module: name for name, module in network.named_modules()}
    activations: dict[nn.Conv2d, nn.Module | None] = {}
    # by id; the tensor too, so that no id comes again, and how often it has been written in place
    outputs: dict[int, tuple[nn.Conv2d, Tensor, int]] = {}

    def after(module: nn.Module, _: object, output: object) -> None:
        if type(module) is nn.Conv2d and module.padding_mode == "zeros":
            assert isinstance(output, Tensor)
            if isinstance(module.padding, str):
                return
            outputs[id(output)] = module, output, output._version
            activations[module] = None

    def before(module: nn.Module, inputs: tuple[object, ...]) -> None:
        if isinstance(module, ACTIVATIONS) and id(inputs[0]) in outputs:
            conv, output, written = outputs.pop(id(inputs[0]))
            if output._version == written:  # no residual has been added to it
                activations[conv] = module

    hooks = [m.register_forward_hook(after) for m in names]
    hooks += [m.register_forward_pre_hook(before) for m in names]
    expected = run()
    for hook in hooks:
        hook.remove()
    swaps: dict[nn.Module, nn.Module] = {}
    for conv, activation in activations.items():
        swaps[conv] = FusedConv2d(conv, activation)
        if activation is not None:
            swaps[activation] = nn.Identity()
    for old, new in swaps.items():
        replace_module(network, names[old], new)
    if not all(
        torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(expected, run(), strict=True)
    ):
        for old in swaps:
            replace_module(network, names[old], old)
