"""How foreign weights become ours: official DiffusionInst models and ImageNet backbones.

The only file that knows other projects' key names; files are read by weights/foreign.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import timm
import torch
from torch import Tensor

from diffinst.config import Config, ConfigError, preset_names
from diffinst.diffusion.schedule import Schedule, cosine_schedule
from diffinst.models.network import DiffusionInstNetwork
from diffinst.ops.filters import FilterLayout
from diffinst.weights.foreign import ConvertError, flat_tensors, read_foreign

__all__ = [
    "ConvertError",
    "Converted",
    "convert",
    "convert_backbone",
    "convert_official",
    "read_foreign",
]

LVIS_CLASSES = 1203
MAX_FILTER_LAYERS = 8
BODY = "backbone.body."
COUNTER = ".num_batches_tracked"

Rename: TypeAlias = str | Callable[[re.Match[str]], str]

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

# Applied in turn to detectron2's ResNet keys; what is left of `.norm.` differs between targets.
RESNET_RENAMES: tuple[tuple[str, Rename], ...] = (
    (r"^stem\.(?=conv1\.)", ""),
    (r"^res([2-5])\.", lambda m: f"layer{int(m[1]) - 1}."),
    (r"\.shortcut\.", ".downsample.0."),
)
FROZEN_NORM = (
    r"(conv\d|\.downsample\.0)\.norm\.(?:running_)?(weight|bias|mean|var)$",
    r"\1.norm_\2",
)
TRAINED_NORM = (
    (r"\bconv(\d)\.norm\.", r"bn\1."),
    (r"\.downsample\.0\.norm\.", ".downsample.1."),
)
SWIN_RENAMES: tuple[tuple[str, Rename], ...] = (
    (r"^layers\.(\d)\.downsample\.", lambda m: f"layers_{int(m[1]) + 1}.downsample."),
    (r"^layers\.(\d)\.", r"layers_\1."),
)
STAGE_RENAMES = {
    "self_attn.in_proj_": "attention.qkv.",
    "self_attn.out_proj.": "attention.out.",
    "inst_interact.dynamic_layer.": "interaction.parameters_of.",
    "inst_interact.out_layer.": "interaction.out.",
    "inst_interact.norm": "interaction.norm",
    "linear1.": "expand.",
    "linear2.": "contract.",
    "norm": "norm",
    "block_time_mlp.1.": "time.",
    "cls_module.": "class_tower.",
    "reg_module.": "box_tower.",
    "class_logits.": "class_logits.",
    "bboxes_delta.": "deltas.",
    "controller.": "filters.",
}
HEAD_RENAMES: tuple[tuple[str, Rename], ...] = (
    (r"^head\.mask_refine\.", "mask_branch.refine."),
    (r"^head\.mask_head\.\d+\.(weight|bias)$", r"mask_branch.out.\1"),
    (r"^head\.mask_head\.", "mask_branch.tower."),
    (r"^head\.time_mlp\.1\.", "decoder.time.layers.0."),
    (r"^head\.time_mlp\.3\.", "decoder.time.layers.2."),
    (
        r"^backbone\.fpn_(lateral|output)([2-5])\.",
        lambda m: f"fpn.{m[1]}s.{int(m[2]) - 2}.",
    ),
    (r"^backbone\.bottom_up\.norm([0-3])\.", r"backbone.norms.\1."),
)


@dataclass(frozen=True)
class Converted:
    """What a foreign file turned out to hold.

    Attributes:
        kind: `model`: a whole DiffusionInst; `backbone`: ImageNet weights.
        config: Of the model; None for a backbone.
        backbone: timm name of the (model's) backbone.
        tensors: Under our names for a model, in timm's layout for a backbone.
    """

    kind: Literal["model", "backbone"]
    config: Config | None
    backbone: str
    tensors: dict[str, Tensor]


def convert(path: str | Path) -> Converted:
    """Read and convert a file, whatever it holds.

    Args:
        path: .pth, .pt, .pkl or .safetensors of an official model or a backbone.

    Raises:
        ConvertError: Unreadable, or neither of the two.
    """
    state = read_foreign(path)
    if any(key.startswith("head.head_series.") for key in state):
        config, tensors = convert_official(state, source=str(path))
        return Converted("model", config, config.model.backbone.name, tensors)
    name, tensors = convert_backbone(state, source=str(path))
    return Converted("backbone", None, name, tensors)


def convert_official(
    state: Mapping[str, object], *, source: str
) -> tuple[Config, dict[str, Tensor]]:
    """An official DiffusionInst state dict as our config and tensors; its shapes tell the sizes.

    Args:
        state: Tensors by official key, or a checkpoint around them.
        source: Named in errors.

    Returns:
        The config, the nearest preset with this file's sizes, and every tensor of the network.

    Raises:
        ConvertError: A key is missing, unknown or of another shape.
    """
    schedule_names = _schedule_tables(cosine_schedule()).keys()
    tables, tensors, federated = {}, {}, False
    for key, value in flat_tensors(state, source).items():
        if key in schedule_names:
            tables[key] = value
        elif key == "criterion.fed_loss_cls_weights":  # counts come from the annotations
            federated = True
        elif not key.endswith("relative_position_index"):  # fixed by the window
            tensors[_official_name(key)] = value
    config = _official_config(tensors, tables, federated, source)
    _check_schedule(tables, config.model.diffusion.timesteps, source)
    with torch.device("meta"):
        expected = DiffusionInstNetwork(config.model).state_dict()
    return config, _fitted(tensors, expected, source)


def convert_backbone(state: Mapping[str, object], *, source: str) -> tuple[str, dict[str, Tensor]]:
    """ImageNet weights in timm's layout, for `model.backbone.weights_file`.

    Args:
        state: Of a detectron2 or torchvision ResNet, or a Swin classifier; wrapped or not.
        source: Named in errors.

    Returns:
        timm's name of the network, and its tensors. A Swin keeps its classifier (some timm versions
        tell the layouts apart by it), a ResNet loses it.

    Raises:
        ConvertError: Another network, or incomplete.
    """
    flat = flat_tensors(state, source)
    if "conv1_w" in flat:
        raise ConvertError(
            f"{source} has Caffe2's names and expects BGR pixels; use torchvision's weights"
        )
    head = {}
    if "patch_embed.proj.weight" in flat:
        foreign = "layers.0.downsample.reduction.weight" in flat  # timm: at the next stage's start
        renames = (*SWIN_RENAMES, (r"^layers_", "layers.")) if foreign else ()
        dropped = r".*(relative_position_index|attn_mask)$"
        head = {
            re.sub(r"^head\.(fc\.)?", "head.fc.", key): value
            for key, value in flat.items()
            if key.startswith("head.")
        }
    else:
        renames, dropped = (*RESNET_RENAMES, *TRAINED_NORM), r"^(stem\.)?fc(1000)?\."
    body = {
        _renamed(key, renames): value
        for key, value in flat.items()
        if not re.match(dropped, key) and not key.startswith("head.")
    }
    name = _timm_name(body, source)
    with torch.device("meta"):
        expected = timm.create_model(name, num_classes=0).state_dict()
    return name, {**_fitted(body, expected, source), **head}


def _renamed(key: str, renames: Sequence[tuple[str, Rename]]) -> str:
    for pattern, replacement in renames:
        key = re.sub(pattern, replacement, key)
    return key


def _official_name(key: str) -> str:
    """Our name of an official key; what is not known stays and is reported later."""
    stage = re.match(r"^head\.head_series\.(\d+)\.(.+)$", key)
    if stage:
        index, rest = stage.groups()
        for theirs, ours in STAGE_RENAMES.items():
            if rest.startswith(theirs):
                return f"decoder.stages.{index}.{ours}{rest.removeprefix(theirs)}"
        return key
    body = key.removeprefix("backbone.bottom_up.")
    if body == key or re.match(r"norm[0-3]\.", body):
        return _renamed(key, HEAD_RENAMES)
    return BODY + _renamed(body, (*RESNET_RENAMES, FROZEN_NORM, *SWIN_RENAMES))


def _official_config(
    tensors: Mapping[str, Tensor], tables: Mapping[str, Tensor], federated: bool, source: str
) -> Config:
    """The nearest preset with the sizes of these tensors."""
    body = {k.removeprefix(BODY): v for k, v in tensors.items() if k.startswith(BODY)}
    backbone = _timm_name(body, source)

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
    base = _nearest_preset(backbone, classes)
    if len(base.model.class_names) != classes:
        changes["model"]["class_names"] = ()
    if federated and base.criterion.class_loss == "focal":
        changes["criterion"] = {"class_loss": "federated_focal"}
    try:
        return base.updated(**changes)
    except ConfigError as error:
        raise ConvertError(f"{source} has sizes that no model of ours can have: {error}") from error


def _nearest_preset(backbone: str, classes: int) -> Config:
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


def _timm_name(body: Mapping[str, Tensor], source: str) -> str:
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


def _schedule_tables(schedule: Schedule) -> dict[str, Tensor]:
    """The twelve derived tables that official models store (DDPM, Eq. 4, 6, 7)."""
    betas, abar = schedule.betas, schedule.alphas_cumprod
    before = torch.cat([abar.new_ones(1), abar[:-1]])
    variance = betas * (1 - before) / (1 - abar)
    return {
        "betas": betas,
        "alphas_cumprod": abar,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": abar.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - abar).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - abar).log(),
        "sqrt_recip_alphas_cumprod": (1 / abar).sqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / abar - 1).sqrt(),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),
        "posterior_mean_coef1": betas * before.sqrt() / (1 - abar),
        "posterior_mean_coef2": (1 - before) * (1 - betas).sqrt() / (1 - abar),
    }


def _check_schedule(tables: Mapping[str, Tensor], timesteps: int, source: str) -> None:
    expected = _schedule_tables(cosine_schedule(timesteps))
    for name, table in tables.items():
        same = table.shape == expected[name].shape
        if not same or not torch.allclose(table.double(), expected[name], rtol=1e-5, atol=1e-8):
            raise ConvertError(
                f"{source} was trained with another noise schedule: its {name} is not that of the "
                f"cosine schedule of {timesteps} steps, the only one there is here"
            )


def _fitted(
    tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str
) -> dict[str, Tensor]:
    """The tensors in the order, shapes and types expected; counters that lack are zero."""
    present = {**{k: torch.zeros(()) for k in expected if k.endswith(COUNTER)}, **tensors}
    missing = [k for k in expected if k not in present]
    unknown = [k for k in present if k not in expected]
    wrong = [
        f"{k} is {tuple(present[k].shape)}, expected {tuple(expected[k].shape)}"
        for k in expected
        if k in present and present[k].shape != expected[k].shape
    ]
    problems = [
        f"{len(names)} {label}: {', '.join(names[:3])}" + (", ..." if len(names) > 3 else "")
        for label, names in (("missing", missing), ("unknown", unknown), ("of wrong shape", wrong))
        if names
    ]
    if problems:
        raise ConvertError(
            f"{source} does not fit the network that its shapes tell of ({'; '.join(problems)}); "
            "convertible are official DiffusionInst models and plain ResNet and Swin backbones"
        )
    return {k: present[k].to(expected[k].dtype) for k in expected}
