"""Image encoders: any timm `features_only` network, as four maps at strides 4, 8, 16, 32.

ResNets run with frozen BatchNorm folded into the convolutions on the fly: the same numbers, one
operation instead of two, and the convolution weights stay trainable. Swin runs timm's modules with
the reference's order, pad to the window first, then shift, and a LayerNorm on each output.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from timm.models import FeatureInfo
from timm.models.swin_transformer import SwinTransformerBlock, window_partition, window_reverse
from torch import Tensor, nn
from torch.nn import functional as F

from diffinst.config import BackboneConfig
from diffinst.models.linear import Linear

STRIDES = (4, 8, 16, 32)


class Backbone(nn.Module):
    """Normalised images to four feature maps.

    Args:
        config: Which network.
        pretrained: Load ImageNet weights: from `config.weights_file`, or timm's from the hub.

    Attributes:
        channels: Channels of the four outputs.
    """

    def __init__(self, config: BackboneConfig, *, pretrained: bool = False) -> None:
        super().__init__()
        self.config = config
        is_swin = config.name.startswith("swin_")
        self.body = _create(config, is_swin, pretrained)
        self.channels: tuple[int, ...] = tuple(_info(self.body).channels())
        self.channels_last_output = getattr(self.body, "output_fmt", "NCHW") == "NHWC"
        norms = [nn.LayerNorm(c) for c in self.channels] if is_swin else []
        self.norms = nn.ModuleList(norms)
        if is_swin:
            for block in self.body.modules():
                if isinstance(block, SwinTransformerBlock):
                    block.__class__ = PadFirstSwinBlock
        for part in self.body.modules():
            if type(part) is nn.Linear:
                part.__class__ = Linear
        if config.norm == "frozen":
            fold_frozen_norms(self.body)
        self._freeze(config.freeze_levels)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) normalised RGB, H and W multiples of 32, to maps (B, C_i, H/s, W/s)."""
        maps: list[Tensor] = self.body(x)
        if not self.channels_last_output:
            return maps
        if len(self.norms):
            maps = [norm(m) for norm, m in zip(self.norms, maps, strict=True)]
        return [m.permute(0, 3, 1, 2).contiguous() for m in maps]

    @property
    def dtype(self) -> torch.dtype:
        """What images are computed in."""
        return next(p.dtype for p in self.body.parameters() if p.ndim == 4)

    def _freeze(self, levels: int) -> None:
        """No gradient up to and including the n-th output."""
        if levels == 0:
            return
        last = str(_info(self.body).module_name()[levels - 1])
        if not _freeze_through(self.body, (last, last.replace(".", "_"))):
            raise ValueError(
                f"backbone.freeze_levels={levels} is not supported for {self.config.name}; use 0"
            )


def _freeze_through(module: nn.Module, names: tuple[str, ...], prefix: str = "") -> bool:
    """Freeze children in order up to the named one, looking into containers; whether it was met."""
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if any(n.startswith(f"{path}.") for n in names):
            return _freeze_through(child, names, f"{path}.")
        child.requires_grad_(False)
        if path in names:
            return True
    return False


def _create(config: BackboneConfig, is_swin: bool, pretrained: bool) -> nn.Module:
    extra: dict[str, Any] = {}
    if is_swin:
        # every stage keeps its window and shift whatever the image's size
        extra = {"strict_img_size": False, "always_partition": True}
    elif config.name.startswith("swinv2_"):
        extra = {"strict_img_size": False}
    if config.drop_path:
        extra["drop_path_rate"] = config.drop_path
    if pretrained and config.weights_file is not None:
        path = Path(config.weights_file)
        if not path.is_file():
            raise FileNotFoundError(
                f"backbone.weights_file {path} does not exist; give a file of timm weights for "
                f"{config.name}, or leave the field empty to load them from the hub"
            )
        extra["pretrained_cfg_overlay"] = {"file": str(path)}
    try:
        with torch.device("meta"):
            info = _info(timm.create_model(config.name, features_only=True))
    except RuntimeError as error:
        raise ValueError(
            f"backbone.name '{config.name}' cannot be built by timm ({error}); "
            "see timm.list_models() for the names"
        ) from error
    strides = info.reduction()
    if not set(STRIDES) <= set(strides):
        raise ValueError(f"backbone {config.name} has strides {strides}, needed are {STRIDES}")
    indices = tuple(info.out_indices[i] for i in _last_of_each(strides))
    try:
        return timm.create_model(
            config.name, features_only=True, out_indices=indices, pretrained=pretrained, **extra
        )
    except Exception as error:  # of the hub's client or the file's reader, of any kind
        if not pretrained:
            raise
        reason = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
        if config.weights_file is not None:
            raise ValueError(
                f"backbone.weights_file {config.weights_file} holds no weights of {config.name} "
                f"({reason}); give a file in timm's layout, as `diffinst convert` writes it"
            ) from error
        raise OSError(
            f"ImageNet weights of {config.name} cannot be loaded from timm's hub ({reason}); name "
            "a local file with model.backbone.weights_file, or start from random weights with "
            "--no-pretrained"
        ) from error


def _info(body: nn.Module) -> FeatureInfo:
    """What timm knows of a network's outputs."""
    info = body.feature_info
    assert isinstance(info, FeatureInfo)
    return info


def _last_of_each(strides: list[int]) -> list[int]:
    return [max(i for i, s in enumerate(strides) if s == wanted) for wanted in STRIDES]


class PadFirstSwinBlock(SwinTransformerBlock):
    """timm's Swin block in the reference's order: pad to whole windows, then shift.

    timm shifts first, which differs at sizes that are no multiple of the window.
    """

    def _attn(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        rows, columns = self.window_size
        shift = tuple(self.shift_size)
        x = F.pad(x, (0, 0, 0, -width % columns, 0, -height % rows))
        padded_height, padded_width = x.shape[1:3]
        mask = None
        if any(shift):
            x = torch.roll(x, shifts=(-shift[0], -shift[1]), dims=(1, 2))
            mask = self.get_attn_mask(x)
        windows = window_partition(x, self.window_size).flatten(1, 2)
        windows = self.attn(windows, mask=mask).unflatten(1, (rows, columns))
        x = window_reverse(windows, self.window_size, padded_height, padded_width)
        if any(shift):
            x = torch.roll(x, shifts=shift, dims=(1, 2))
        return x[:, :height, :width].contiguous()


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
        super().__init__(**_geometry(conv), bias=conv.bias is not None, device="meta")
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
        plain = kind(**_geometry(self), device="meta")
        plain.weight, plain.bias = (nn.Parameter(v, requires_grad=False) for v in self.folded())
        return plain.eval()


def _geometry(conv: nn.Conv2d) -> dict[str, Any]:
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
                _replace(body, names[pairs[norm]], FrozenNormConv2d(pairs[norm], norm))
            else:
                rest.insert(0, FrozenNorm2d(norm))
            _replace(body, names[norm], rest if len(rest) != 1 else rest[0])
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


def _replace(body: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(body.get_submodule(parent) if parent else body, leaf, module)
