"""What the parts of an optimiser step have in common, so that any split gives the same gradient.

A step's batch is split over processes, and in each over micro-batches. Losses are divided by the
matched pairs of the whole batch, and federated losses see the classes of all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diffinst.config import Config
from diffinst.training.batch_norm import fixed_statistics
from diffinst.training.loader import Process, TrainBatch
from diffinst.training.pairs import Match, PackedTargets
from diffinst.training.step import TrainingStep


@dataclass(frozen=True)
class Common:
    """What the losses of every part are computed with.

    Attributes:
        pairs: (S,) what each stage's terms are divided by; None: the part's own matched pairs.
        federated: Classes per stage that take part; None: the loss is over all classes.
    """

    pairs: Tensor | None
    federated: list[Tensor] | None


class MicroBatches:
    """The parts of one optimiser step.

    Args:
        step: Network and criterion.
        config: The run's.
        iteration: Number of the step; all that is random follows from it.
        process: Which of several processes this is.
    """

    def __init__(
        self, step: TrainingStep, config: Config, iteration: int, process: Process
    ) -> None:
        self.step, self.config, self.iteration, self.process = step, config, iteration, process

    @property
    def _together(self) -> bool:
        return self.config.criterion.pairs == "step"

    def seed(self, part: int) -> None:
        """Stochastic depth of a micro-batch follows from its number and process."""
        seed = [self.config.train.seed, 2, self.iteration, part, self.process.rank]
        torch.manual_seed(int(np.random.default_rng(seed).integers(2**62)))

    def matches(self, parts: Sequence[TrainBatch]) -> list[Match] | None:
        """The matches of all parts beforehand; None where the losses can do without."""
        if len(parts) == 1 or not self._together:
            return None
        found = []
        for i, part in enumerate(parts):
            self.seed(i)
            found.append(match_alone(self.step, part))
        return found

    def common(self, parts: Sequence[TrainBatch], matches: Sequence[Match]) -> Common:
        """What these parts have in common with each other and with those of other processes."""
        pairs = None
        if self._together:
            pairs = self._summed(torch.stack([m.pairs() for m in matches]).sum(0))
            pairs = pairs.clamp(min=1) / (self.process.world * len(matches))
        if not self.step.criterion.federated:
            return Common(pairs, None)
        present = torch.stack(
            [self._present(part, match) for part, match in zip(parts, matches, strict=True)]
        ).sum(0)
        present = self._summed(present) if self._together else present
        seed = np.random.default_rng([self.config.train.seed, 3, self.iteration]).integers(2**62)
        generator = torch.Generator().manual_seed(int(seed))
        return Common(pairs, self.step.criterion.draw_classes(present > 0, generator))

    def _present(self, part: TrainBatch, match: Match) -> Tensor:
        """(S, K + 1) int64 matched pairs of each class, and queries without any, in each stage."""
        packed = PackedTargets.of(self.step.limited(part.targets, part.draws), match.owner.device)
        return self.step.criterion.present(match, packed, self.config.model.num_classes)

    def _summed(self, counts: Tensor) -> Tensor:
        """Over all processes."""
        if self.process.world > 1:
            torch.distributed.all_reduce(counts)
        return counts


@torch.no_grad()
def match_alone(step: TrainingStep, part: TrainBatch) -> Match:
    """The matched pairs of a batch alone: no masks, no gradient, no running statistics."""
    targets = step.limited(part.targets, part.draws)
    scale = part.images.scale()
    with fixed_statistics(step.network):
        pyramid = step.network.pyramid(part.images)
        start = step.noisy_boxes(pyramid, scale, targets, part.draws)
        stages = step.network.decoder(pyramid, start.boxes, start.times)
    torch.clear_autocast_cache()  # casts made without gradient are no use for the step itself
    packed = PackedTargets.of(targets, start.boxes.device)
    return step.criterion.match(stages, packed, scale, start.held)
