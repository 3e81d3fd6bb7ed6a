"""What learns, and how fast: frozen parts, parameter groups, the learning rate over a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from diffinst.config import TrainConfig
from diffinst.models.network import DiffusionInstNetwork


def freeze(network: DiffusionInstNetwork, parts: Sequence[str]) -> None:
    """Named parts (`backbone`, `fpn`, `mask_branch`, `decoder`) keep their weights.

    Raises:
        ValueError: Nothing would be left to learn.
    """
    for part in parts:
        network.get_submodule(part).requires_grad_(False)
    if not any(p.requires_grad for p in network.parameters()):
        raise ValueError(f"train.freeze {', '.join(parts)} leaves nothing to learn; free a part")


def parameter_groups(network: DiffusionInstNetwork, train: TrainConfig) -> list[dict[str, Any]]:
    """The backbone's parameters with their own learning rate, and all others."""
    backbone = [p for p in network.backbone.parameters() if p.requires_grad]
    own = {id(p) for p in backbone}
    rest = [p for p in network.parameters() if p.requires_grad and id(p) not in own]
    groups: list[dict[str, Any]] = [{"params": rest, "lr": train.lr}]
    if backbone:
        groups.append({"params": backbone, "lr": train.lr * train.backbone_lr_factor})
    return groups


def lr_factor(iteration: int, train: TrainConfig) -> float:
    """Learning rate of an iteration, relative to `train.lr`.

    Example:
        >>> train = TrainConfig(warmup=10, iterations=100, milestones=(50, 80))
        >>> [round(lr_factor(i, train), 3) for i in (0, 10, 49, 50, 80)]
        [0.01, 1.0, 1.0, 0.1, 0.01]
    """
    warm = 1.0
    if iteration < train.warmup:
        progress = iteration / train.warmup
        warm = train.warmup_factor * (1 - progress) + progress
    if train.schedule == "cosine":
        return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, iteration / train.iterations)))
    passed = sum(iteration >= milestone for milestone in train.milestones)
    return warm * float(0.1**passed)
