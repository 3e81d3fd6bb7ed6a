"""Frozen BatchNorm, folded into the convolution in front of it on the fly.

The same numbers in one operation instead of two, and the convolution's weights stay trainable.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn


class FrozenNorm2d(nn.Module):
    """A BatchNorm that learns nothing: x * scale + shift, its four vectors are buffers."""

    norm_weight: Tensor
    norm_bias: Tensor
    norm_mean: Tensor
    norm_var: Tensor

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        _keep_norm(self, norm)
        self.eps = norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same size."""
        scale = self.norm_weight * torch.rsqrt(self.norm_var + self.eps)
        shift = self.norm_bias - self.norm_mean * scale
        return x * scale.view(-1, 1, 1).to(x.dtype) + shift.view(-1, 1, 1).to(x.dtype)


class FrozenNormConv2d(nn.Conv2d):
    """A convolution with the frozen BatchNorm behind it: conv(x, w * scale) + shift.

    Keeps the weight as it was before the norm, so that training and checkpoints see what they know;
    the norm's four vectors are buffers.
    """

    norm_weight: Tensor
    norm_bias: Tensor
    norm_mean: Tensor
    norm_var: Tensor

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        super().__init__(**geometry(conv), bias=conv.bias is not None, device="meta")
        self.weight, self.bias = conv.weight, conv.bias
        self.pads_itself = isinstance(conv, Conv2dSame)
        _keep_norm(self, norm)
        self.eps = norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """Convolution and norm as one."""
        if self.pads_itself:
            x = pad_same(x, self.kernel_size, self.stride, self.dilation)  # type: ignore[arg-type]
        folded: Tensor = self._conv_forward(x, *self.folded())
        return folded

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the one convolution that does the same."""
        scale = self.norm_weight * torch.rsqrt(self.norm_var + self.eps)
        mean = self.norm_mean if self.bias is None else self.norm_mean - self.bias
        return self.weight * scale.view(-1, 1, 1, 1), self.norm_bias - mean * scale

    def merged(self) -> nn.Conv2d:
        """The one convolution that does the same, in eval mode; it is not trained."""
        kind = Conv2dSame if self.pads_itself else nn.Conv2d
        plain = kind(**geometry(self), device="meta")
        plain.weight, plain.bias = (nn.Parameter(v, requires_grad=False) for v in self.folded())
        return plain.eval()


def geometry(conv: nn.Conv2d) -> dict[str, Any]:
    """Arguments of a convolution of the same shape."""
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation")
    return {name: getattr(conv, name) for name in (*names, "groups")}


def _keep_norm(module: nn.Module, norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None and norm.running_var is not None
    module.register_buffer("norm_weight", norm.weight.detach().clone())
    module.register_buffer("norm_bias", norm.bias.detach().clone())
    module.register_buffer("norm_mean", norm.running_mean.detach().clone())
    module.register_buffer("norm_var", norm.running_var.detach().clone())


def fold_frozen_norms(body: nn.Module) -> None:
    """Freeze every BatchNorm2d of a network, in place, folded into its convolution where it can be.

    Pairs are found by running a small image and looking which norm reads which convolution's
    output; what timm's norm layers do behind the norm (activation) stays. The same image checks
    that the network still computes the same.

    Raises:
        ValueError: It does not (a convolution's output is used twice, say), or not at any size.
    """
    names = {module: name for name, module in body.named_modules()}
    norms = [m for m in body.modules() if isinstance(m, nn.BatchNorm2d)]
    if not norms:
        return
    producer: dict[int, nn.Conv2d] = {}
    outputs: list[Tensor] = []  # kept alive, so that no id is used twice
    pairs: dict[nn.BatchNorm2d, nn.Conv2d] = {}

    def after_conv(module: nn.Module, _: object, output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        outputs.append(output)
        producer[id(output)] = module

    def before_norm(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.BatchNorm2d)
        if id(inputs[0]) in producer:
            pairs[module] = producer[id(inputs[0])]

    hooks = [
        m.register_forward_hook(after_conv) for m in body.modules() if isinstance(m, nn.Conv2d)
    ]
    hooks += [m.register_forward_pre_hook(before_norm) for m in norms]
    training = body.training
    probe = torch.linspace(-2, 2, 3 * 64 * 64).view(1, 3, 64, 64)
    with torch.no_grad():
        try:
            before = body.eval()(probe)
        except (AssertionError, RuntimeError) as error:
            raise ValueError(
                f"this backbone does not run on images of any size ({error}); choose another"
            ) from error
        for hook in hooks:
            hook.remove()
        for norm in norms:
            rest = _rest_of(norm)
            if norm in pairs:
                replace_module(body, names[pairs[norm]], FrozenNormConv2d(pairs[norm], norm))
            else:
                rest.insert(0, FrozenNorm2d(norm))
            replace_module(body, names[norm], rest if len(rest) != 1 else rest[0])
        after = body(probe)
    body.train(training)
    if probe.is_meta:  # built without values: nothing to compare
        return
    if not all(
        torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(before, after, strict=True)
    ):
        raise ValueError(
            "the norms of this backbone cannot be frozen; set backbone.norm to 'train' for it"
        )


def _rest_of(norm: nn.BatchNorm2d) -> nn.Sequential:
    """What timm's combined norm layers still do behind the norm; empty: nothing."""
    drop, act = getattr(norm, "drop", None), getattr(norm, "act", None)
    rest = [m for m in (drop, act) if m is not None and not isinstance(m, nn.Identity)]
    return nn.Sequential(*rest)


def replace_module(body: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of the one of this name."""
    parent, _, leaf = name.rpartition(".")
    setattr(body.get_submodule(parent) if parent else body, leaf, module)
