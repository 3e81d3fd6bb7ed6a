"""Trades time for memory: backbone and decoder stages compute their activations twice."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from diffinst.models.network import DiffusionInstNetwork


def recompute_activations(network: DiffusionInstNetwork) -> None:
    """Keep only the inputs of backbone stages and decoder stages for the backward pass.

    The mask branch keeps the results of its convolutions (`kernels.again`): nearly all of the rest
    of its time is theirs. State dict and results stay as they are.
    """
    for stage in network.decoder.stages:
        _wrap(stage)
    for child in backbone_parts(network.backbone.body):
        _wrap(child)


def backbone_parts(body: nn.Module) -> list[nn.Module]:
    """The parts of a backbone between its outputs, as timm lays them out."""
    found: list[nn.Module] = []
    for child in body.children():
        if isinstance(child, nn.Sequential) and len(child) > 1:
            found += [block for block in child if any(True for _ in block.parameters())]
        elif any(True for _ in child.parameters()) and any(True for _ in child.children()):
            found.append(child)
    return found


def _wrap(module: nn.Module) -> None:
    forward = module.forward

    def twice(*arguments: Any) -> Any:  # noqa: ANN401
        if not module.training:
            return forward(*arguments)
        return checkpoint(forward, *arguments, use_reentrant=False)

    module.forward = twice
