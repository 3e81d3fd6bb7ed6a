"""The paper's sampler: found boxes go on by DDIM, the others start again (box renewal).

Shapes are fixed: kept proposals move to the front and `torch.where` fills up behind them, so any
batch works and one image never changes another.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from diffinst.config import DiffusionConfig, Options
from diffinst.diffusion.schedule import Schedule
from diffinst.diffusion.signal import to_signal
from diffinst.diffusion.solvers import Solver
from diffinst.diffusion.start import Start, begin, visited
from diffinst.inference.found import confident
from diffinst.structures import Encoded, StageOutput


@dataclass(frozen=True)
class DdimSampler:
    """See `Sampler`.

    Attributes:
        options: Steps or times, and the score below which a proposal starts again.
        diffusion: Signal.
        schedule: alpha-bar.
        solver: From one time to the next.
    """

    options: Options
    diffusion: DiffusionConfig
    schedule: Schedule
    solver: Solver

    def times(self, starts: Sequence[Start] = ()) -> list[tuple[int, int]]:
        """Even ones from T - 1 or the starts' time, or those that the options name."""
        return visited(self.options.steps, self.options.times, self.schedule, starts)

    def begin(
        self,
        starts: Sequence[Start],
        outputs: Sequence[tuple[int, int]],
        encoded: Encoded,
        noise: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """One time an image; the starts' boxes are brought to it, the others are noise."""
        times = self.options.times
        x, now = noise, len(self.schedule) - 1 if times is None else times[0]
        if starts:
            x = begin(starts, outputs, encoded, noise, self.schedule, self.diffusion)
            now = starts[0].time
        return x, torch.full((len(x),), now, device=x.device)

    @property
    def key(self) -> Hashable:
        """Solver and renewal; the schedule is the model's."""
        return "ddim", self.solver, self.options.renewal_threshold

    def kept(self, last: StageOutput) -> Tensor:
        """Those with a class probability above the renewal threshold."""
        return confident(last, self.options.renewal_threshold)

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
        """Kept proposals one step of the solver further, in order; the rest starts again."""
        s = self.diffusion.scale
        x_start = to_signal(last.boxes, scale, self.diffusion).clamp(-s, s)
        order, count = kept_first(kept)
        rows = order[..., None].expand_as(x)
        x, x_start = x.gather(1, rows), x_start.gather(1, rows)
        moved = self.solver.step(
            x, x_start, renoise, now=now, following=following, schedule=self.schedule
        )
        return renewed(moved, fresh, count)


def kept_first(kept: Bool[Tensor, "B N"]) -> tuple[Tensor, Tensor]:
    """The order that brings kept proposals to the front, each group in its own order.

    Returns:
        (B, N) int64 rows in that order, and (B, 1) int64 how many are kept.
    """
    position = torch.arange(kept.shape[1], device=kept.device).expand_as(kept)
    count = kept.sum(1)[:, None]
    place = torch.where(kept, kept.cumsum(1) - 1, count + (~kept).cumsum(1) - 1)
    return torch.zeros_like(place).scatter(1, place, position), count


def renewed(
    moved: Float[Tensor, "B N 4"], fresh: Float[Tensor, "B N 4"], count: Tensor
) -> Float[Tensor, "B N 4"]:
    """Box renewal: the first `count` proposals of each image go on, fresh ones fill up in order.

    Args:
        moved: (B, N, 4) signal at the next time, kept proposals first.
        fresh: (B, N, 4) fresh starts; the first N - count are used.
        count: (B, 1) int64.
    """
    position = torch.arange(moved.shape[1], device=moved.device)
    row = (position - count).clamp(min=0)[..., None].expand_as(fresh)
    return torch.where((position < count)[..., None], moved, fresh.gather(1, row).to(moved))
