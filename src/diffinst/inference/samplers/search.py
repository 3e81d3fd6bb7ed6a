"""A sampler that searches: every step starts from noise, and nothing found is lost or moved.

DDIM moves found boxes before the decoder looks again, and they take the proposals that would find
something new. Here what was found stays as it is, outside the N proposals, and all N look for more.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffinst.config import DiffusionConfig, Options
from diffinst.diffusion.schedule import Schedule
from diffinst.diffusion.start import Start, begin
from diffinst.structures import Encoded, StageOutput


@dataclass(frozen=True)
class SearchSampler:
    """See `Sampler`.

    Attributes:
        options: Number of steps.
        diffusion: Signal.
        schedule: For T, and for the starts' time.
    """

    options: Options
    diffusion: DiffusionConfig
    schedule: Schedule

    def times(self, starts: Sequence[Start] = ()) -> list[tuple[int, int]]:
        """T - 1 in every step: all boxes but the starts' are pure noise."""
        last, steps = len(self.schedule) - 1, self.options.steps
        return [(last, last)] * (steps - 1) + [(last, -1)]

    def begin(
        self,
        starts: Sequence[Start],
        outputs: Sequence[tuple[int, int]],
        encoded: Encoded,
        noise: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """A time for each proposal: the starts' boxes have theirs, the others are noise."""
        last = len(self.schedule) - 1
        if not starts:
            return noise, torch.full((len(noise),), last, device=noise.device)
        x = begin(starts, outputs, encoded, noise, self.schedule, self.diffusion)
        t = torch.full(x.shape[:2], last, device=x.device)
        for row, start in zip(t, starts, strict=True):
            row[: len(start)] = start.time
        return x, t

    @property
    def key(self) -> Hashable:
        """Nothing else matters."""
        return "search"

    def kept(self, last: StageOutput) -> Tensor:
        """Nobody."""
        return torch.zeros_like(last.logits[..., 0], dtype=torch.bool)

    def advance(
        self,
        x: Tensor,
        last: StageOutput,
        kept: Tensor,
        scale: Tensor,
        renoise: Tensor,
        fresh: Tensor,
        *,
        now: int,
        following: int,
    ) -> Tensor:
        """All start again."""
        return fresh.to(x)
