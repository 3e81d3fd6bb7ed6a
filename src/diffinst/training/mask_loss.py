"""How far the masks of matched queries are from their objects' (the dice term of Eq. 5)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recomputed

from diffinst.config import CriterionConfig
from diffinst.kernels.again import again
from diffinst.models.mask_head import MaskHead
from diffinst.ops.losses import dice
from diffinst.ops.masks import enlarge, grid_points, sample_binary, sample_targets
from diffinst.structures import Encoded, StageOutput, Targets
from diffinst.training.pairs import Match


def mask_losses(
    stages: Sequence[StageOutput],
    encoded: Encoded,
    targets: Sequence[Targets],
    match: Match,
    boxes: Tensor,
    mask_head: MaskHead,
    config: CriterionConfig,
) -> Tensor:
    """Summed dice loss of each stage: (S,), with gradients even where nothing matched.

    Args:
        stages: Decoder outputs.
        encoded: The encoded batch.
        targets: Objects of each image.
        match: The matched pairs.
        boxes: (M, 4) xyxy pixels, of the pairs' queries; no gradient.
        mask_head: Evaluates the filters, and says where.
        config: Which stages, and how many masks are held at once.
    """
    total = encoded.mask_features.sum() * 0 + sum(s.filters.float().sum() * 0 for s in stages)
    losses = total.expand(len(stages))
    keep = torch.ones_like(match.stage, dtype=torch.bool)
    if config.mask_stages == "last":
        keep = match.stage == len(stages) - 1
    if not bool(keep.any()):
        return losses
    filters = match.of_queries(torch.stack([s.filters for s in stages])).float()
    grid = mask_head.config.evaluate == "grid"
    measure = partial(_grid_dice, encoded, targets, mask_head)
    if not grid:
        measure = partial(_map_dice, encoded, _on_map(targets, encoded), mask_head)
    for group in _groups(match, keep, together=grid, chunk=config.mask_chunk):
        given = (filters[group], boxes[group], match.image[group], match.target[group])
        if config.mask_chunk is not None:
            values = recomputed(measure, *given, use_reentrant=False)
        else:
            values = measure(*given) if grid else again(measure, *given)
        losses = losses.index_add(0, match.stage[group], values)
    return losses


def _on_map(targets: Sequence[Targets], encoded: Encoded) -> list[Tensor]:
    """The objects' masks at the points of F_mask: one (n, H/4, W/4) per image."""
    height, width = encoded.mask_features.shape[-2:]
    return [sample_targets(t.masks, (4 * height, 4 * width)) for t in targets]


def _map_dice(
    encoded: Encoded,
    objects: Sequence[Tensor],
    mask_head: MaskHead,
    filters: Tensor,
    boxes: Tensor,
    image: Tensor,
    target: Tensor,
) -> Tensor:
    """(m,) dice on the whole padded stride-4 map (the paper)."""
    logits = mask_head.on_map(encoded.mask_features, filters, boxes, image)
    wanted = torch.cat([masks[target[image == i]] for i, masks in enumerate(objects)])
    return dice(logits.float().sigmoid().flatten(1), wanted.flatten(1))


def _grid_dice(
    encoded: Encoded,
    targets: Sequence[Targets],
    mask_head: MaskHead,
    filters: Tensor,
    boxes: Tensor,
    image: Tensor,
    target: Tensor,
) -> Tensor:
    """(m,) dice on a grid over each object's enlarged box."""
    config = mask_head.config
    grids = [grid_points(enlarge(t.boxes, config.grid_margin), config.grid_train) for t in targets]
    wanted = [sample_binary(t.masks, grid) for t, grid in zip(targets, grids, strict=True)]
    starts = torch.tensor([0, *[len(t) for t in targets]], device=target.device).cumsum(0)
    row = starts[image] + target
    points = torch.cat(grids)[row]
    logits = mask_head.at_points(encoded.mask_features, filters, boxes, image, points)
    return dice(logits.float().sigmoid(), torch.cat(wanted)[row])


def _groups(match: Match, keep: Tensor, *, together: bool, chunk: int | None) -> list[Tensor]:
    """Index sets whose masks are evaluated together: all or a stage at a time, cut into chunks."""
    if together:
        groups = [torch.nonzero(keep)[:, 0]]
    else:
        groups = [torch.nonzero(keep & (match.stage == s))[:, 0] for s in range(len(match.owner))]
    if chunk is not None:
        groups = [part for group in groups for part in torch.split(group, chunk)]
    return [g for g in groups if len(g)]
