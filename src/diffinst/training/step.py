"""One training step: corrupt the objects' boxes, denoise them (Eq. 4), compare (Eq. 5)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffinst.config import StartsConfig
from diffinst.diffusion.schedule import cosine_schedule
from diffinst.diffusion.signal import Corruption, kept_objects
from diffinst.models.network import DiffusionInstNetwork
from diffinst.structures import Encoded, ImageBatch, Pyramid, StageOutput, Targets
from diffinst.training.criterion import Criterion
from diffinst.training.pairs import Match, PackedTargets
from diffinst.training.starts import Starts, mixed, noised

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
        starts: What images start from; the default is the paper's.
    """

    def __init__(
        self,
        network: DiffusionInstNetwork,
        criterion: Criterion,
        proposals: int = 500,
        starts: StartsConfig | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.criterion = criterion
        self.proposals = proposals
        self.starts = starts or StartsConfig()
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
        encoded = self.network.encode(images)
        start = self.noisy_boxes(encoded.pyramid, encoded.scale, targets, draws)
        stages = self.network.denoise(encoded, start.boxes, start.times)
        if match is None:
            packed = PackedTargets.of(targets, start.boxes.device)
            match = self.criterion.match(stages, packed, encoded.scale, start.held)
        return Predicted(start.boxes, stages, encoded, targets, match)

    def draw(
        self, targets: Sequence[Targets], generator: torch.Generator | None = None
    ) -> list[Corruption]:
        """Random draws of a batch, one image after the other: time, noise, placeholder boxes."""
        config = self.network.config.diffusion
        return [
            Corruption.draw(self.proposals, len(t), config, generator, self.starts) for t in targets
        ]

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
        self,
        pyramid: Pyramid,
        scale: Tensor,
        targets: Sequence[Targets],
        draws: Sequence[Corruption],
    ) -> Starts:
        """What the decoder gets: b_t and t of a batch (Eq. 4, first line), or other starts."""
        network, diffusion = self.network, self.network.config.diffusion
        paper = noised(targets, draws, scale, self.schedule, diffusion)
        decoder, starts = network.decoder, self.starts
        return mixed(paper, targets, draws, pyramid, scale, decoder, diffusion, starts)

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
