"""DDIM: one step between two times (DDIM, Eq. 12 and 16)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxtyping import Float, Float64
from torch import Tensor

from diffinst.diffusion.schedule import Schedule


@dataclass(frozen=True)
class Ddim:
    """The paper's solver.

    Attributes:
        eta: 0: deterministic; 1: as much noise as DDPM (the paper).
    """

    eta: float = 1.0

    def step(
        self,
        x_t: Float[Tensor, "*shape"],
        x_start: Float[Tensor, "*shape"],
        noise: Float[Tensor, "*shape"],
        *,
        now: int,
        following: int,
        schedule: Schedule,
    ) -> Float64[Tensor, "*shape"]:
        """See `Solver.step`."""
        abar, abar_next = schedule.alpha_bar(now), schedule.alpha_bar(following)
        eps = schedule.predict_noise(x_t, x_start, now)
        sigma = self.eta * math.sqrt((1 - abar / abar_next) * (1 - abar_next) / (1 - abar))
        direction = math.sqrt(1 - abar_next - sigma**2)
        return x_start.double() * math.sqrt(abar_next) + direction * eps + sigma * noise.double()
