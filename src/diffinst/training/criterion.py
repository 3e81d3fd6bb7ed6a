"""The training objective: class, box and dice losses of every stage, matched on its own (Eq. 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recomputed

from diffinst.config import CriterionConfig
from diffinst.models.mask_head import MaskHead
from diffinst.ops.boxes import giou, iou
from diffinst.ops.losses import dice, sample_classes, sigmoid_focal
from diffinst.ops.masks import enlarge, grid_points, sample_binary, sample_targets
from diffinst.structures import Encoded, StageOutput, Targets
from diffinst.training.matcher import FREE, dynamic_k_match, matching_cost


@dataclass(frozen=True)
class PackedTargets:
    """The objects of a batch, padded to the fullest image: G columns.

    Attributes:
        boxes: (B, G, 4) xyxy pixels.
        labels: (B, G) int64, 0 where padded.
        valid: (B, G) bool.
    """

    boxes: Tensor
    labels: Tensor
    valid: Tensor

    @classmethod
    def of(cls, targets: Sequence[Targets], device: torch.device) -> PackedTargets:
        """Pack one `Targets` per image."""
        widest = max((len(t) for t in targets), default=0)
        boxes = torch.zeros(len(targets), widest, 4, device=device)
        labels = torch.zeros(len(targets), widest, dtype=torch.int64, device=device)
        valid = torch.zeros(len(targets), widest, dtype=torch.bool, device=device)
        for i, t in enumerate(targets):
            boxes[i, : len(t)] = t.boxes
            labels[i, : len(t)] = t.labels
            valid[i, : len(t)] = True
        return cls(boxes, labels, valid)


@dataclass(frozen=True)
class Match:
    """Matched pairs of all stages, stage by stage, image by image, in query order.

    Attributes:
        stage, image, query, target: (M,) int64 each; `target` counts within its image.
        owner: (S, B, N) int64 object of each query or `FREE`.
    """

    stage: Tensor
    image: Tensor
    query: Tensor
    target: Tensor
    owner: Tensor

    @classmethod
    def of(cls, owner: Tensor) -> Match:
        """From (S, B, N) owners."""
        stage, image, query = torch.nonzero(owner != FREE, as_tuple=True)
        return cls(stage, image, query, owner[stage, image, query], owner)

    def pairs(self) -> Tensor:
        """(S,) float32 matched pairs of each stage."""
        return self.per_stage(torch.ones_like(self.stage, dtype=torch.float32))

    def per_stage(self, values: Tensor) -> Tensor:
        """Sum (M,) values within each stage: (S,)."""
        stages = self.owner.shape[0]
        return values.new_zeros(stages).index_add(0, self.stage, values)


class Criterion(nn.Module):
    """Losses of all decoder stages.

    Args:
        config: Weights and choices.
        class_counts: (K,) images that contain each class; needed by the federated losses.

    Raises:
        ValueError: A federated loss without counts.
    """

    class_weights: Tensor | None

    def __init__(self, config: CriterionConfig, class_counts: Tensor | None = None) -> None:
        super().__init__()
        self.config = config
        self.federated = config.class_loss != "focal"
        if self.federated and class_counts is None:
            raise ValueError(
                f"class_loss '{config.class_loss}' draws classes by how many images hold them; "
                "pass class_counts"
            )
        weights = None if class_counts is None else class_counts.double() ** config.federated_power
        self.register_buffer("class_weights", weights, persistent=False)

    def match(self, stages: Sequence[StageOutput], targets: PackedTargets, scale: Tensor) -> Match:
        """Match every stage of every image on its own; no gradient.

        Args:
            stages: Decoder outputs.
            targets: Objects.
            scale: (B, 1, 4) (w, h, w, h) of the unpadded images.
        """
        count = len(stages)
        with torch.no_grad(), torch.autocast(scale.device.type, enabled=False):
            valid = targets.valid.repeat(count, 1)
            cost, overlap = matching_cost(
                torch.cat([s.logits for s in stages]),
                torch.cat([s.boxes for s in stages]),
                targets.boxes.repeat(count, 1, 1),
                targets.labels.repeat(count, 1),
                valid,
                scale.repeat(count, 1, 1),
                self.config.matcher,
                "log" if self.config.class_loss == "federated_bce" else "focal",
            )
            owner = dynamic_k_match(cost, overlap, valid, self.config.matcher.candidates)
        return Match.of(owner.view(count, -1, owner.shape[1]))

    def forward(
        self,
        stages: Sequence[StageOutput],
        encoded: Encoded,
        targets: Sequence[Targets],
        mask_head: MaskHead,
        *,
        match: Match | None = None,
        pairs: Tensor | None = None,
        federated: Sequence[Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """All terms, weighted, and their sum.

        Args:
            stages: Decoder outputs, first to last.
            encoded: The encoded batch.
            targets: Objects of each image.
            mask_head: Evaluates the filters.
            match: Pairs to use instead of matching.
            pairs: (S,) what the terms of each stage are divided by; the stage's own matched pairs
                (at least 1) where None.
            federated: Classes that take part, one tensor per stage, instead of drawing them.
            generator: For those draws.

        Returns:
            `loss` and `loss/{class,l1,giou,dice}` of the last stage, `..._stage{i}` of the others.
        """
        device = stages[0].boxes.device
        packed = PackedTargets.of(targets, device)
        scale = encoded.scale
        if match is None:
            match = self.match(stages, packed, scale)
        with torch.autocast(device.type, enabled=False):
            share = 1 / (match.pairs().clamp(min=1) if pairs is None else pairs)  # (S,)
            boxes = torch.stack([s.boxes.float() for s in stages])
            boxes = boxes[match.stage, match.image, match.query]
            wanted = packed.boxes[match.image, match.target]
            unit = scale[match.image, 0]
            if self.config.matcher.l1_unit == "object":
                unit = (wanted[:, 2:] - wanted[:, :2]).clamp(min=1).repeat(1, 2)
            l1 = match.per_stage(((boxes - wanted) / unit).abs().sum(-1))
            giou_loss = match.per_stage(1 - giou(boxes, wanted))
            quality = iou(boxes.detach(), wanted)
            class_loss = self._class_losses(stages, packed, match, quality, federated, generator)
            mask_loss = self._mask_losses(
                stages, encoded, targets, match, boxes.detach(), mask_head
            )
        config = self.config
        terms = {
            "class": class_loss * share * config.class_weight,
            "l1": l1 * share * config.l1_weight,
            "giou": giou_loss * share * config.giou_weight,
            "dice": mask_loss * share * config.mask_weight,
        }
        last = len(stages) - 1
        losses = {
            f"loss/{name}" + ("" if i == last else f"_stage{i}"): values[i]
            for name, values in terms.items()
            for i in range(len(stages))
            if not (name == "dice" and i < last and config.mask_stages == "last")
        }
        losses["loss"] = torch.stack(list(losses.values())).sum()
        return losses

    def _class_losses(
        self,
        stages: Sequence[StageOutput],
        packed: PackedTargets,
        match: Match,
        quality: Tensor,
        federated: Sequence[Tensor] | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Summed class loss of each stage: (S,)."""
        config = self.config
        logits = torch.stack([s.logits.float() for s in stages])  # (S, B, N, K)
        labels = packed.labels[match.image, match.target]
        wanted = torch.zeros_like(logits)
        value = quality if config.class_target == "iou" else torch.ones_like(quality)
        wanted[match.stage, match.image, match.query, labels] = value
        bce = config.class_loss == "federated_bce"
        alpha, gamma = (-1.0, 0.0) if bce else (config.focal_alpha, config.focal_gamma)
        loss = sigmoid_focal(logits, wanted, alpha=alpha, gamma=gamma)
        if self.federated:
            if federated is None:
                seen = self.present(match, packed, logits.shape[-1]) > 0
                federated = self.draw_classes(seen, generator)
            loss = loss * self._taking_part(logits, federated)
        return loss.sum(dim=(1, 2, 3))

    @staticmethod
    def present(match: Match, targets: PackedTargets, classes: int) -> Tensor:
        """(S, K + 1) int64: matched queries of each class in each stage, and free ones."""
        labels = targets.labels[match.image, match.target]
        counts = labels.new_zeros(len(match.owner), classes + 1)
        ones = torch.ones_like(labels)
        counts.index_put_((match.stage, labels), ones, accumulate=True)
        counts[:, classes] = (match.owner == FREE).sum(dim=(1, 2))
        return counts

    def draw_classes(
        self, present: Tensor, generator: torch.Generator | None = None
    ) -> list[Tensor]:
        """Classes that take part in the federated loss of each stage.

        Args:
            present: (S, K + 1) bool, from `present`; over all parts of a step.
            generator: On the CPU, for the draws.
        """
        assert self.class_weights is not None
        weights = self.class_weights.cpu()
        return [
            sample_classes(
                torch.nonzero(row)[:, 0], weights, self.config.federated_classes, generator
            ).to(present.device)
            for row in present.cpu()
        ]

    @staticmethod
    def _taking_part(logits: Tensor, federated: Sequence[Tensor]) -> Tensor:
        """(S, 1, 1, K) 1 where a class takes part in the stage's loss."""
        classes = logits.shape[-1]
        mask = logits.new_zeros(logits.shape[0], classes + 1)
        for row, chosen in zip(mask, federated, strict=True):
            row[chosen.to(mask.device)] = 1
        return mask[:, None, None, :classes]

    def _mask_losses(
        self,
        stages: Sequence[StageOutput],
        encoded: Encoded,
        targets: Sequence[Targets],
        match: Match,
        boxes: Tensor,
        mask_head: MaskHead,
    ) -> Tensor:
        """Summed dice loss of each stage: (S,), with gradients even where nothing matched."""
        total = encoded.mask_features.sum() * 0 + sum(s.filters.float().sum() * 0 for s in stages)
        losses = total.expand(len(stages))
        if self.config.mask_stages == "last":
            keep = match.stage == len(stages) - 1
        else:
            keep = torch.ones_like(match.stage, dtype=torch.bool)
        if not bool(keep.any()):
            return losses
        filters = torch.stack([s.filters for s in stages])
        filters = filters[match.stage, match.image, match.query].float()
        grid = mask_head.config.evaluate == "grid"
        measure = self._grid_dice if grid else self._map_dice
        chunk = self.config.mask_chunk
        for group in _groups(match, keep, together=grid, chunk=chunk):
            arguments = (
                filters[group],
                boxes[group],
                match.image[group],
                match.target[group],
                encoded,
                targets,
                mask_head,
            )
            if chunk is None:
                values = measure(*arguments)
            else:
                values = recomputed(measure, *arguments, use_reentrant=False)
            losses = losses.index_add(0, match.stage[group], values)
        return losses

    @staticmethod
    def _map_dice(
        filters: Tensor,
        boxes: Tensor,
        image: Tensor,
        target: Tensor,
        encoded: Encoded,
        targets: Sequence[Targets],
        mask_head: MaskHead,
    ) -> Tensor:
        """(m,) dice on the whole padded stride-4 map (the paper)."""
        height, width = encoded.mask_features.shape[-2:]
        logits = mask_head.on_map(encoded.mask_features, filters, boxes, image)
        wanted = [
            sample_targets(t.masks[target[image == i]], (4 * height, 4 * width))
            for i, t in enumerate(targets)
            if bool((image == i).any())
        ]
        return dice(logits.float().sigmoid().flatten(1), torch.cat(wanted).flatten(1))

    @staticmethod
    def _grid_dice(
        filters: Tensor,
        boxes: Tensor,
        image: Tensor,
        target: Tensor,
        encoded: Encoded,
        targets: Sequence[Targets],
        mask_head: MaskHead,
    ) -> Tensor:
        """(m,) dice on a grid over each object's enlarged box."""
        config = mask_head.config
        points = []
        wanted = []
        for t in targets:
            grid = grid_points(enlarge(t.boxes, config.grid_margin), config.grid_train)
            points.append(grid)
            wanted.append(sample_binary(t.masks, grid))
        starts = torch.tensor([0, *[len(t) for t in targets]], device=target.device).cumsum(0)
        row = starts[image] + target
        logits = mask_head.at_points(
            encoded.mask_features, filters, boxes, image, torch.cat(points)[row]
        )
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
