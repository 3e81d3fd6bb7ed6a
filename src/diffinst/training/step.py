"""One training step: corrupt the objects' boxes, denoise them (Eq. 4), compare (Eq. 5)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffinst.diffusion.schedule import cosine_schedule
from diffinst.diffusion.signal import Corruption, corrupt, from_signal, kept_objects, to_unit
from diffinst.models.network import DiffusionInstNetwork
from diffinst.structures import Encoded, ImageBatch, StageOutput, Targets
from diffinst.training.criterion import Criterion
from diffinst.training.pairs import Match, PackedTargets

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Predicted:
    """What the network made of a batch's noisy boxes, and who was matched to whom.

    Attributes:
        start: (B, N, 4) xyxy pixels, the noisy boxes b_t that went in.
        stages: Decoder outputs.
        encoded: The encoded batch.
        targets: The objects that took part.
        match: The matched pairs.
    """

    start: Tensor
    stages: list[StageOutput]
    encoded: Encoded
    targets: list[Targets]
    match: Match


@dataclass(frozen=True)
class StepOutput(Predicted):
    """A step with its losses: weighted terms and their sum `loss`."""

    losses: dict[str, Tensor]


class TrainingStep(nn.Module):
    """Network and criterion, joined by the forward process.

    Args:
        network: What learns.
        criterion: Matching and losses.
        proposals: N, boxes per image.
    """

    def __init__(
        self, network: DiffusionInstNetwork, criterion: Criterion, proposals: int = 500
    ) -> None:
        super().__init__()
        self.network = network
        self.criterion = criterion
        self.proposals = proposals
        self._crowded: set[int] = set()  # images that were warned of
        self.schedule = cosine_schedule(network.config.diffusion.timesteps)

    def forward(
        self,
        images: ImageBatch,
        targets: Sequence[Targets],
        draws: Sequence[Corruption] | None = None,
        *,
        match: Match | None = None,
        federated: Sequence[Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> StepOutput:
        """Losses of one batch.

        Args:
            images: Images.
            targets: Their objects.
            draws: The randomness; drawn here where None.
            match: Pairs to use instead of matching.
            federated: Classes per stage for the federated losses, instead of drawing them.
            generator: For draws.
        """
        predicted = self.predict(images, targets, draws, match=match, generator=generator)
        losses = self.losses(predicted, federated=federated, generator=generator)
        return StepOutput(**vars(predicted), losses=losses)

    def predict(
        self,
        images: ImageBatch,
        targets: Sequence[Targets],
        draws: Sequence[Corruption] | None = None,
        *,
        match: Match | None = None,
        generator: torch.Generator | None = None,
    ) -> Predicted:
        """The first half of a step: corrupt, denoise, match; arguments as in `forward`."""
        draws = self.draw(targets, generator) if draws is None else draws
        targets = self.limited(targets, draws)
        start, t = self.noisy_boxes(images, targets, draws)
        encoded = self.network.encode(images)
        stages = self.network.denoise(encoded, start, t)
        if match is None:
            packed = PackedTargets.of(targets, start.device)
            match = self.criterion.match(stages, packed, encoded.scale)
        return Predicted(start, stages, encoded, targets, match)

    def draw(
        self, targets: Sequence[Targets], generator: torch.Generator | None = None
    ) -> list[Corruption]:
        """Random draws of a batch, one image after the other: time, noise, placeholder boxes."""
        config = self.network.config.diffusion
        return [Corruption.draw(self.proposals, len(t), config, generator) for t in targets]

    def limited(self, targets: Sequence[Targets], draws: Sequence[Corruption]) -> list[Targets]:
        """At most N objects of each image: the same ones for the noise and for the matcher."""
        return [self._limited(target, draw) for target, draw in zip(targets, draws, strict=True)]

    def _limited(self, target: Targets, draw: Corruption) -> Targets:
        proposals = len(draw.noise)
        if len(target) <= proposals:
            return target
        if target.image_id not in self._crowded:
            self._crowded.add(target.image_id)
            logger.warning(
                "image %d has %d objects but only %d proposals: %d drawn at random take part in "
                "each step; raise train.proposals",
                target.image_id,
                len(target),
                proposals,
                proposals,
            )
        keep = kept_objects(len(target), proposals, draw.order)
        return target[keep.to(target.labels)]

    def noisy_boxes(
        self, images: ImageBatch, targets: Sequence[Targets], draws: Sequence[Corruption]
    ) -> tuple[Tensor, Tensor]:
        """b_t of a batch (Eq. 4, first line): (B, N, 4) xyxy pixels, and (B,) times."""
        config = self.network.config.diffusion
        scale = images.scale()
        starts = []
        for i, (target, draw) in enumerate(zip(targets, draws, strict=True)):
            boxes_unit = to_unit(target.boxes, scale[i], config)
            _, x_t = corrupt(boxes_unit, draw, self.schedule, config)
            starts.append(from_signal(x_t, scale[i], config))
        times = scale.new_tensor([d.t for d in draws], dtype=torch.int64)
        return torch.stack(starts), times

    def losses(
        self,
        predicted: Predicted,
        *,
        pairs: Tensor | None = None,
        federated: Sequence[Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """The second half (Eq. 5): all loss terms.

        Args:
            predicted: From `predict`.
            pairs: (S,) what each stage's terms are divided by, where a batch is one of several that
                count together; its own matched pairs where None.
            federated: Classes per stage for the federated losses, instead of drawing them.
            generator: For that draw.
        """
        losses: dict[str, Tensor] = self.criterion(
            predicted.stages,
            predicted.encoded,
            predicted.targets,
            self.network.mask_head,
            match=predicted.match,
            pairs=pairs,
            federated=federated,
            generator=generator,
        )
        return losses
