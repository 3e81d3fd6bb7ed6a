"""What the shapes of foreign tensors tell: which backbone they are, and which configuration."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from torch import Tensor

from diffinst.config import Config, ConfigError, preset_names
from diffinst.ops.filters import FilterLayout
from diffinst.weights.foreign import ConvertError
from diffinst.weights.names import BODY

LVIS_CLASSES = 1203
MAX_FILTER_LAYERS = 8

# blocks per stage, bottleneck or not -> timm name
RESNETS: dict[tuple[tuple[int, ...], bool], str] = {
    ((2, 2, 2, 2), False): "resnet18",
    ((3, 4, 6, 3), False): "resnet34",
    ((3, 4, 6, 3), True): "resnet50.tv_in1k",
    ((3, 4, 23, 3), True): "resnet101.tv_in1k",
    ((3, 8, 36, 3), True): "resnet152",
}
# width, blocks per stage, window -> timm name
SWINS: dict[tuple[int, tuple[int, ...], int], str] = {
    (96, (2, 2, 6, 2), 7): "swin_tiny_patch4_window7_224.ms_in1k",
    (96, (2, 2, 18, 2), 7): "swin_small_patch4_window7_224.ms_in1k",
    (128, (2, 2, 18, 2), 7): "swin_base_patch4_window7_224.ms_in22k",
    (128, (2, 2, 18, 2), 12): "swin_base_patch4_window12_384.ms_in22k",
    (192, (2, 2, 18, 2), 7): "swin_large_patch4_window7_224.ms_in22k",
    (192, (2, 2, 18, 2), 12): "swin_large_patch4_window12_384.ms_in22k",
}
PRESET_STEMS = {
    "resnet50.tv_in1k": "r50",
    "resnet101.tv_in1k": "r101",
    "swin_base_patch4_window7_224.ms_in22k": "swin-b",
    "swin_large_patch4_window7_224.ms_in22k": "swin-l",
}


def official_config(
    tensors: Mapping[str, Tensor], tables: Mapping[str, Tensor], federated: bool, source: str
) -> Config:
    """The nearest preset with the sizes of these tensors."""
    body = {k.removeprefix(BODY): v for k, v in tensors.items() if k.startswith(BODY)}
    backbone = timm_name(body, source)

    def size(key: str, axis: int = 0) -> int:
        if key not in tensors or tensors[key].ndim <= axis:
            raise ConvertError(
                f"{source} is no official DiffusionInst model: nothing becomes {key}"
            )
        return tensors[key].shape[axis]

    def count(pattern: str) -> int:
        found = [re.match(pattern, key) for key in tensors]
        return 1 + max((int(m[1]) for m in found if m), default=-1)

    stage = "decoder.stages.0."
    classes, width = size(f"{stage}class_logits.bias"), size(f"{stage}norm1.weight")
    channels = size("mask_branch.out.bias")
    cells = size(f"{stage}interaction.out.weight", 1) // width
    changes: dict[str, dict[str, object]] = {
        "model": {
            "num_classes": classes,
            "backbone": {"name": backbone},
            "mask_branch": {
                "width": size("mask_branch.out.weight", 1),
                "channels": channels,
                "depth": count(r"mask_branch\.tower\.(\d+)\."),
            },
            "filters": _filter_sizes(size(f"{stage}filters.bias"), channels, source),
            "decoder": {
                "stages": count(r"decoder\.stages\.(\d+)\."),
                "width": width,
                "dynamic_width": size(f"{stage}interaction.norm1.weight"),
                "feedforward": size(f"{stage}expand.bias"),
                # a layer is linear, norm, activation: three places in the tower
                "class_layers": -(-count(r"decoder\.stages\.0\.class_tower\.(\d+)\.") // 3),
                "box_layers": -(-count(r"decoder\.stages\.0\.box_tower\.(\d+)\.") // 3),
                "roi_size": math.isqrt(cells),
            },
            "diffusion": {"timesteps": len(tables["betas"])} if "betas" in tables else {},
        }
    }
    base = nearest_preset(backbone, classes)
    if len(base.model.class_names) != classes:
        changes["model"]["class_names"] = ()
    if federated and base.criterion.class_loss == "focal":
        changes["criterion"] = {"class_loss": "federated_focal"}
    try:
        return base.updated(**changes)
    except ConfigError as error:
        raise ConvertError(f"{source} has sizes that no model of ours can have: {error}") from error


def nearest_preset(backbone: str, classes: int) -> Config:
    """The preset of the same kind of backbone, for COCO unless the classes are LVIS's."""
    stem = PRESET_STEMS.get(backbone, "swin-b" if backbone.startswith("swin_") else "r50")
    data = "lvis" if classes == LVIS_CLASSES else "coco"
    name = f"{stem}-{data}"
    return Config.from_preset(name if name in preset_names() else f"{stem}-coco")


def _filter_sizes(length: int, channels: int, source: str) -> dict[str, object]:
    """Layers of a filter of this length, all `channels` wide."""
    for layers in range(1, MAX_FILTER_LAYERS + 1):
        if FilterLayout(channels, channels, layers).size == length:
            return {"layers": layers, "channels": channels}
    raise ConvertError(
        f"{source} has filters of {length} numbers; with {channels} mask channels no number of "
        f"layers up to {MAX_FILTER_LAYERS} gives that"
    )


def timm_name(body: Mapping[str, Tensor], source: str) -> str:
    """Which timm network has this body."""
    blocks: dict[int, int] = {}
    for key in body:
        found = re.match(r"layers?[._]?(\d)\.(?:blocks\.)?(\d+)\.", key)
        if found:
            blocks[int(found[1])] = max(blocks.get(int(found[1]), 0), int(found[2]) + 1)
    depths = tuple(blocks[stage] for stage in sorted(blocks))
    name = RESNETS.get((depths, "layer1.0.conv3.weight" in body))
    bias = [v for k, v in body.items() if k.endswith("relative_position_bias_table")]
    if "patch_embed.proj.weight" in body and bias:
        window = (math.isqrt(bias[0].shape[0]) + 1) // 2
        name = SWINS.get((body["patch_embed.proj.weight"].shape[0], depths, window))
    if name is None:
        known = ", ".join([*RESNETS.values(), *SWINS.values()])
        raise ConvertError(
            f"{source} holds no known backbone (blocks per stage {depths}); known are {known}"
        )
    return name
