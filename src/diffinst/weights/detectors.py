"""What detectors of other libraries give to ours: a backbone, and a pyramid where they have one.

Known are the layouts of torchvision's Mask R-CNN, of detectron2's FPN models and of transformers'
Mask2Former with a Swin. All come out as RGB with ImageNet's mean and standard deviation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from diffinst.config import BackboneConfig
from diffinst.config.model import IMAGENET_MEAN, IMAGENET_STD
from diffinst.models.backbone import Backbone
from diffinst.weights.convert import COUNTER, ConvertError, fitted
from diffinst.weights.names import BODY, FROZEN_NORM, SWIN_RENAMES, Rename, official_name, renamed
from diffinst.weights.sizes import timm_name

EPS = 1e-5  # of BatchNorm, here and in both libraries
CAFFE_STD = (1.0, 1.0, 1.0)  # with BGR, detectron2's default
ENCODER = "model.pixel_level_module.encoder."  # Mask2Former's backbone
PYRAMID = {
    f"fpn.{part}.{level}.{kind}"
    for part in ("laterals", "outputs")
    for level in range(4)
    for kind in ("weight", "bias")
}
TORCHVISION_RENAMES: tuple[tuple[str, Rename], ...] = (
    (r"\.bn(\d)\.", r".conv\1.norm."),
    (r"\.downsample\.1\.", ".downsample.0.norm."),
    FROZEN_NORM,
    (r"^backbone\.fpn\.inner_blocks\.", "fpn.laterals."),
    (r"^backbone\.fpn\.layer_blocks\.", "fpn.outputs."),
    (r"^(fpn\.\w+\.\d)\.0\.", r"\1."),
    (r"^(fpn\.\w+\.\d)\.1\.", r"\1.norm."),
)
MASK2FORMER_RENAMES: tuple[tuple[str, Rename], ...] = (
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.norm\.", "patch_embed.norm."),
    (r"^encoder\.", ""),
    *SWIN_RENAMES,
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.attention\.self\.", ".attn."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
)
Layout = Literal["torchvision", "detectron2", "mask2former"]


@dataclass(frozen=True)
class Parts:
    """What was found in a detector.

    Attributes:
        backbone: timm's name of it, and where its stages have their stride.
        tensors: By our names (`backbone.` with frozen norms, and `fpn.` or nothing).
    """

    backbone: BackboneConfig
    tensors: dict[str, Tensor]


def layout(keys: Iterable[str]) -> Layout | None:
    """Whose detector has tensors of these names; None: nobody's that is known."""
    names = list(keys)

    def some(prefix: str) -> bool:
        return any(name.startswith(prefix) for name in names)

    if some(ENCODER):
        return "mask2former"
    if some("backbone.fpn.inner_blocks."):
        return "torchvision"
    if some("backbone.bottom_up.") and not some("head.head_series."):  # an official model
        return "detectron2"
    return None


def parts(state: Mapping[str, Tensor], source: str) -> Parts:
    """Backbone and pyramid of a detector; a pyramid of another form than ours is omitted.

    Args:
        state: Its tensors, in one of the layouts.
        source: Named in errors.

    Raises:
        ConvertError: Its backbone is no plain ResNet or Swin, is incomplete, or takes pixels that
            cannot be ImageNet's.
    """
    match layout(state):
        case "torchvision":
            tensors, caffe = _torchvision(state), False
        case "detectron2":
            tensors, caffe = _detectron2(state, source)
        case "mask2former":
            tensors, caffe = _mask2former(state), False
        case None:
            raise ConvertError(f"{source} holds no detector that is known")
    body = {k.removeprefix(BODY): v for k, v in tensors.items() if k.startswith(BODY)}
    bottlenecks = "layer1.0.conv3.weight" in body
    config = BackboneConfig(
        name=timm_name(body, source), freeze_levels=0, stride_in_1x1=caffe and bottlenecks
    )
    with torch.device("meta"):
        expected = Backbone(config).state_dict(prefix="backbone.")
    backbone = {k: v for k, v in tensors.items() if k.startswith("backbone.")}
    return Parts(config, {**fitted(backbone, expected, source), **_pyramid(tensors)})


def _torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    tensors = {
        renamed(key, TORCHVISION_RENAMES): value
        for key, value in state.items()
        if key.startswith("backbone.") and not key.endswith(COUNTER)
    }
    if f"{BODY}bn1{COUNTER}" not in state:  # frozen from the start: torchvision's eps is zero there
        for key in [k for k in tensors if k.endswith(".norm_var")]:
            tensors[key] = tensors[key] - EPS
    return tensors


def _detectron2(state: Mapping[str, Tensor], source: str) -> tuple[dict[str, Tensor], bool]:
    """Tensors, and whether the backbone is Caffe's: BGR, std 1, stride in 1x1 convolutions.

    Caffe's norms come folded into scale and shift, so that their means are all zero; statistics
    that a file omits are those.
    """
    tensors = {
        official_name(key): value
        for key, value in state.items()
        if key.startswith("backbone.") and not key.endswith((COUNTER, "relative_position_index"))
    }
    for key in [k for k in tensors if k.endswith(".norm_weight")]:
        stem = key.removesuffix("weight")
        tensors.setdefault(f"{stem}mean", torch.zeros_like(tensors[key]))
        tensors.setdefault(f"{stem}var", torch.ones_like(tensors[key]) - EPS)
    means = [value for key, value in tensors.items() if key.endswith(".norm_mean")]
    caffe = bool(means) and not any(mean.any() for mean in means)
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    if caffe:
        mean, std = mean.flip(0), torch.tensor(CAFFE_STD)
    mean, std = (state.get(f"pixel_{k}", v).flatten() for k, v in (("mean", mean), ("std", std)))
    bgr = bool(mean[0] < mean[-1])
    if bgr:
        mean, std = mean.flip(0), std.flip(0)
    if not torch.allclose(mean.float(), torch.tensor(IMAGENET_MEAN), atol=0.01):
        raise ConvertError(
            f"{source} takes off {mean.tolist()} from RGB pixels; only ImageNet's mean will do, "
            f"{list(IMAGENET_MEAN)}"
        )
    for key in (f"{BODY}conv1.weight", f"{BODY}patch_embed.proj.weight"):
        if key in tensors:
            weight = tensors[key].flip(1) if bgr else tensors[key]
            tensors[key] = weight * (torch.tensor(IMAGENET_STD) / std).view(1, 3, 1, 1)
    return tensors, caffe


def _mask2former(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for key, value in state.items():
        inner = key.removeprefix(ENCODER)
        if inner == key or re.match(r"(swin\.)?layernorm\.|.*relative_position_index$", inner):
            continue
        norm = re.match(r"hidden_states_norms\.stage(\d)\.(\w+)$", inner)
        if norm:
            tensors[f"backbone.norms.{int(norm[1]) - 1}.{norm[2]}"] = value
        else:
            tensors[BODY + renamed(inner, MASK2FORMER_RENAMES)] = value
    for key in [k for k in tensors if ".attn.query." in k]:
        three = [key.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
        if all(part in tensors for part in three):
            joined = torch.cat([tensors.pop(part) for part in three])
            tensors[key.replace(".query.", ".qkv.")] = joined
    return tensors


def _pyramid(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Ours, with norms folded into the convolutions in front; nothing where the form is another."""
    found = {key: value for key, value in tensors.items() if key.startswith("fpn.")}
    for key in [k for k in found if k.endswith(".norm.running_var")]:
        stem = key.removesuffix("norm.running_var")
        var, mean, scale, shift = (
            found.pop(f"{stem}norm.{name}", None)
            for name in ("running_var", "running_mean", "weight", "bias")
        )
        if var is None or mean is None or scale is None or shift is None:
            return {}
        scale = scale * torch.rsqrt(var + EPS)
        weight = found[f"{stem}weight"]
        found[f"{stem}weight"] = weight * scale.view(-1, 1, 1, 1)
        found[f"{stem}bias"] = shift - (mean - found.get(f"{stem}bias", 0)) * scale
    return found if set(found) == PYRAMID else {}
