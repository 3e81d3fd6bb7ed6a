"""How foreign weights become ours: official DiffusionInst models and ImageNet backbones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import timm
import torch
from torch import Tensor

from diffinst.config import Config
from diffinst.diffusion.schedule import Schedule, cosine_schedule
from diffinst.models.network import DiffusionInstNetwork
from diffinst.weights.foreign import ConvertError, flat_tensors, read_foreign
from diffinst.weights.names import (
    RESNET_RENAMES,
    SWIN_RENAMES,
    TRAINED_NORM,
    official_name,
    renamed,
)
from diffinst.weights.sizes import official_config, timm_name
from diffinst.weights.store import differences

__all__ = [
    "ConvertError",
    "Converted",
    "convert",
    "convert_backbone",
    "convert_official",
    "convert_state",
    "fitted",
    "read_foreign",
]

COUNTER = ".num_batches_tracked"


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
        path: .pth, .pt, .bin, .pkl or .safetensors of an official model or a backbone.

    Raises:
        ConvertError: Unreadable, or neither of the two.
    """
    return convert_state(read_foreign(path), source=str(path))


def convert_state(state: Mapping[str, Tensor], *, source: str) -> Converted:
    """Convert what `read_foreign` has read from `source`; the rest as in `convert`."""
    if any(key.startswith("head.head_series.") for key in state):
        config, tensors = convert_official(state, source=source)
        return Converted("model", config, config.model.backbone.name, tensors)
    name, tensors = convert_backbone(state, source=source)
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
            tensors[official_name(key)] = value
    config = official_config(tensors, tables, federated, source)
    _check_schedule(tables, config.model.diffusion.timesteps, source)
    with torch.device("meta"):
        expected = DiffusionInstNetwork(config.model).state_dict()
    return config, fitted(tensors, expected, source)


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
        renamed(key, renames): value
        for key, value in flat.items()
        if not re.match(dropped, key) and not key.startswith("head.")
    }
    name = timm_name(body, source)
    with torch.device("meta"):
        expected = timm.create_model(name, num_classes=0).state_dict()
    return name, {**fitted(body, expected, source), **head}


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


def fitted(
    tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str
) -> dict[str, Tensor]:
    """The tensors in the order, shapes and types expected; counters that lack are zero.

    Raises:
        ConvertError: One is missing, unknown or of another shape.
    """
    present = {**{k: torch.zeros(()) for k in expected if k.endswith(COUNTER)}, **tensors}
    problems = [
        f"{len(lines)} {label}: {', '.join(lines[:3])}" + (", ..." if len(lines) > 3 else "")
        for label, lines in differences(present, expected).items()
    ]
    if problems:
        raise ConvertError(
            f"{source} does not fit the network that its shapes tell of ({'; '.join(problems)}); "
            "convertible are official DiffusionInst models and plain ResNet and Swin backbones"
        )
    return {k: present[k].to(expected[k].dtype) for k in expected}
