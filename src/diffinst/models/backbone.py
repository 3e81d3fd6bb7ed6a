"""Image encoders: any timm `features_only` network, as four maps at strides 4, 8, 16, 32.

ResNets run with frozen BatchNorm (`frozen_norm`), Swin with windows padded before they are shifted
(`swin`) and a LayerNorm on each output.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import FeatureInfo
from timm.models.resnet import Bottleneck
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn

from diffinst.config import BackboneConfig
from diffinst.io.hub import offline_at_once
from diffinst.io.one_line import first_line
from diffinst.models.frozen_norm import fold_frozen_norms
from diffinst.models.linear import Linear
from diffinst.models.swin import PadFirstSwinBlock

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
            if config.stride_in_1x1 and isinstance(part, Bottleneck):
                part.conv1.stride, part.conv2.stride = part.conv2.stride, part.conv1.stride
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
    from_hub = pretrained and config.weights_file is None
    indices = tuple(info.out_indices[i] for i in _last_of_each(strides))
    unreachable = None
    try:
        with offline_at_once() if from_hub else nullcontext() as unreachable:
            return timm.create_model(
                config.name, features_only=True, out_indices=indices, pretrained=pretrained, **extra
            )
    except Exception as error:  # of the hub's client or the file's reader, of any kind
        if not pretrained:
            raise
        reason = unreachable or first_line(error)
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
