"""One training step: corrupt the objects' boxes, denoise them, compare (Eq. 4, 5)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffinst.diffusion.schedule import cosine_schedule
from diffinst.diffusion.signal import Corruption, corrupt, from_signal, kept_objects, to_unit
from diffinst.models.network import DiffusionInstNetwork
from diffinst.structures import Encoded, ImageBatch, StageOutput, Targets
from diffinst.training.criterion import Criterion, Match, PackedTargets

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
    """Network and criterion, joined by the forward process; usable without any trainer.

    Args:
        network: What learns.
        criterion: What it is told.
        proposals: N, boxes per image.
    """

    def __init__(
        self, network: DiffusionInstNetwork, criterion: Criterion, proposals: int = 500
    ) -> None:
        super().__init__()
        self.network = network
        self.criterion = criterion
        self.proposals = proposals
        self.schedule = cosine_schedule(network.config.diffusion.timesteps)

    def draw(
        self, targets: Sequence[Targets], generator: torch.Generator | None = None
    ) -> list[Corruption]:
        """Random draws of a batch, one image after the other."""
        config = self.network.config.diffusion
        return [Corruption.draw(self.proposals, len(t), config, generator) for t in targets]

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
        targets = [self._limited(t, d) for t, d in zip(targets, draws, strict=True)]
        start, t = self.noisy_boxes(images, targets, draws)
        encoded = self.network.encode(images)
        stages = self.network.denoise(encoded, start, t)
        if match is None:
            packed = PackedTargets.of(targets, start.device)
            match = self.criterion.match(stages, packed, images.scale())
        return Predicted(start, stages, encoded, targets, match)

    def losses(
        self,
        predicted: Predicted,
        *,
        pairs: Tensor | None = None,
        federated: Sequence[Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """The second half: all loss terms.

        Args:
            predicted: From `predict`.
            pairs: (S,) what each stage's terms are divided by, where a batch is one of several that
                make an optimiser step; its own matched pairs where None.
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

    @torch.no_grad()
    def match(
        self, images: ImageBatch, targets: Sequence[Targets], draws: Sequence[Corruption]
    ) -> Match:
        """The matched pairs of a batch alone: no masks, no gradient, no running statistics."""
        targets = [self._limited(t, d) for t, d in zip(targets, draws, strict=True)]
        start, t = self.noisy_boxes(images, targets, draws)
        with fixed_statistics(self.network):
            stages = self.network.decoder(self.network.pyramid(images), start, t)
        return self.criterion.match(stages, PackedTargets.of(targets, start.device), images.scale())

    def present(
        self, targets: Sequence[Targets], draws: Sequence[Corruption], match: Match
    ) -> Tensor:
        """(S, K + 1) int64 matched pairs of each class, and queries without any, in each stage."""
        limited = [self._limited(t, d) for t, d in zip(targets, draws, strict=True)]
        packed = PackedTargets.of(limited, match.owner.device)
        return self.criterion.present(match, packed, self.network.config.num_classes)

    def noisy_boxes(
        self, images: ImageBatch, targets: Sequence[Targets], draws: Sequence[Corruption]
    ) -> tuple[Tensor, Tensor]:
        """b_t of a batch: (B, N, 4) xyxy pixels, and (B,) times."""
        config = self.network.config.diffusion
        scale = images.scale()
        starts = []
        for i, (target, draw) in enumerate(zip(targets, draws, strict=True)):
            boxes_unit = to_unit(target.boxes, scale[i], config)
            _, x_t = corrupt(boxes_unit, draw, self.schedule, config)
            starts.append(from_signal(x_t, scale[i], config))
        times = torch.tensor([d.t for d in draws], device=scale.device)
        return torch.stack(starts), times

    def _limited(self, target: Targets, draw: Corruption) -> Targets:
        """At most N objects: the same ones for the noise and for the matcher."""
        proposals = len(draw.noise)
        if len(target) <= proposals:
            return target
        logger.warning(
            "image %d has %d objects but only %d proposals: %d drawn at random take part in this "
            "step; raise train.proposals",
            target.image_id,
            len(target),
            proposals,
            proposals,
        )
        keep = kept_objects(len(target), proposals, draw.order)
        return target[keep.to(target.labels.device)]


def running_statistics(network: nn.Module) -> list[Tensor]:
    """What BatchNorm layers in training mode count as images go through them."""
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    return [
        b for norm in norms if norm.training and norm.track_running_stats for b in norm.buffers()
    ]


@contextmanager
def fixed_statistics(network: nn.Module) -> Iterator[None]:
    """BatchNorm layers normalise as in training but leave their running statistics alone."""
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    tracked = [m.track_running_stats for m in norms]
    learning = [m.training for m in norms]
    try:
        for norm, learns in zip(norms, learning, strict=True):
            norm.track_running_stats = norm.track_running_stats and not learns
        yield
    finally:
        for norm, track in zip(norms, tracked, strict=True):
            norm.track_running_stats = track
