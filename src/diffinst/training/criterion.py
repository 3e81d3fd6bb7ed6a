"""The training objective: class, box and dice losses of every stage, matched on its own (Eq. 5)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diffinst.config import CriterionConfig
from diffinst.models.mask_head import MaskHead
from diffinst.ops.boxes import giou, iou
from diffinst.ops.losses import sample_classes, sigmoid_focal
from diffinst.structures import Encoded, StageOutput, Targets
from diffinst.training.mask_loss import mask_losses
from diffinst.training.matcher import FREE, dynamic_k_match, matching_cost, with_held
from diffinst.training.pairs import Match, PackedTargets


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

    def match(
        self,
        stages: Sequence[StageOutput],
        targets: PackedTargets,
        scale: Tensor,
        held: Tensor | None = None,
    ) -> Match:
        """Match every stage of every image on its own; no gradient.

        Args:
            stages: Decoder outputs.
            targets: Objects.
            scale: (B, 1, 4) (w, h, w, h) of the unpadded images.
            held: (B, N) int64 the object that a query belongs to in every stage, or `FREE`.
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
            if held is not None:
                cost = with_held(cost, held.repeat(count, 1))
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
        config, scale = self.config, encoded.scale
        packed = PackedTargets.of(targets, scale.device)
        if match is None:
            match = self.match(stages, packed, scale)
        with torch.autocast(scale.device.type, enabled=False):
            per_pair = 1 / (match.pairs().clamp(min=1) if pairs is None else pairs)  # (S,)
            boxes = match.of_queries(torch.stack([s.boxes.float() for s in stages]))
            wanted = match.of_objects(packed.boxes)
            unit = scale[match.image, 0]
            if config.matcher.l1_unit == "object":
                unit = (wanted[:, 2:] - wanted[:, :2]).clamp(min=1).repeat(1, 2)
            l1 = match.per_stage(((boxes - wanted) / unit).abs().sum(-1))
            giou_loss = match.per_stage(1 - giou(boxes, wanted))
            still = boxes.detach()
            quality = iou(still, wanted)
            class_loss = self._class_losses(stages, packed, match, quality, federated, generator)
            dice = mask_losses(stages, encoded, targets, match, still, mask_head, config)
        terms = {
            "class": class_loss * per_pair * config.class_weight,
            "l1": l1 * per_pair * config.l1_weight,
            "giou": giou_loss * per_pair * config.giou_weight,
            "dice": dice * per_pair * config.mask_weight,
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
        labels = match.of_objects(packed.labels)
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
        labels = match.of_objects(targets.labels)
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
