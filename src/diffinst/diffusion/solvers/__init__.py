"""Ways from one time to the next: one file each, one protocol."""

from __future__ import annotations

from typing import Protocol

from jaxtyping import Float, Float64
from torch import Tensor

from diffinst.diffusion.schedule import Schedule


class Solver(Protocol):
    """Takes a signal from the present time to the next one."""

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
        """x at the next time, from the present x and the network's idea of the clean signal.

        Args:
            x_t: (..., 4) signal, not clamped.
            x_start: (..., 4) predicted x_0 in [-s, s].
            noise: (..., 4) N(0, 1).
            now: Present time.
            following: Next time, >= 0.
            schedule: alpha-bar.

        Returns:
            (..., 4) float64.
        """
        ...
