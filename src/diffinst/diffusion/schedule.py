"""The noise schedule: how much of a box is left at time t (Eq. 1, 2).

| code | paper |
|---|---|
| `betas` | beta_t |
| `alphas_cumprod` | alpha-bar_t |
| `x_start`, `x_t`, `noise` | x_0, x_t, epsilon |

Everything is float64, as the published numbers are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

COSINE_OFFSET = 0.008  # Nichol and Dhariwal, Eq. 17
MAX_BETA = 0.999


@dataclass(frozen=True)
class Schedule:
    """Tables over t = 0..T-1; build it with `cosine_schedule`.

    Attributes:
        betas: (T,) float64.
        alphas_cumprod: (T,) float64, from nearly 1 down to 2.4e-9 (T = 1000).
        alpha_bars: The same as numbers, for steps that no tensor decides.
    """

    betas: Float64[Tensor, "T"]
    alphas_cumprod: Float64[Tensor, "T"]
    alpha_bars: tuple[float, ...]

    def __len__(self) -> int:
        """T."""
        return len(self.betas)

    def alpha_bar(self, t: int) -> float:
        """alpha-bar_t as a number; 1 at t = -1, the clean end of the process."""
        if not -1 <= t < len(self):
            raise ValueError(f"t must lie in [-1, {len(self) - 1}], got {t}")
        return 1.0 if t < 0 else self.alpha_bars[t]

    def add_noise(
        self,
        x_start: Float[Tensor, "B *shape"],
        noise: Float[Tensor, "B *shape"],
        t: Int64[Tensor, "B"],
    ) -> Float64[Tensor, "B *shape"]:
        """x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps (Eq. 2; the printed one lacks a root).

        Args:
            x_start: (B, ..., 4) signal.
            noise: Same shape, N(0, 1).
            t: (B,) int64 in [0, T).

        Returns:
            Same shape, float64.
        """
        abar = self.alphas_cumprod.to(t.device)[t].view(-1, *[1] * (x_start.ndim - 1))
        return abar.sqrt() * x_start + (1 - abar).sqrt() * noise

    def predict_noise(
        self, x_t: Float[Tensor, "*shape"], x_start: Float[Tensor, "*shape"], t: int
    ) -> Float64[Tensor, "*shape"]:
        """The epsilon that leads from x_0 to x_t, the inverse of Eq. 2; float64."""
        abar = self.alpha_bar(t)
        recip, recip_m1 = math.sqrt(1.0 / abar), math.sqrt(1.0 / abar - 1)
        return (recip * x_t.double() - x_start) / recip_m1


def cosine_schedule(timesteps: int = 1000) -> Schedule:
    """Nichol and Dhariwal's cosine schedule.

    Example:
        >>> round(float(cosine_schedule(1000).alphas_cumprod[500]), 4)
        0.4923
    """
    steps = torch.linspace(0, timesteps, timesteps + 1, dtype=torch.float64)
    angle = ((steps / timesteps) + COSINE_OFFSET) / (1 + COSINE_OFFSET) * math.pi * 0.5
    abar = torch.cos(angle) ** 2
    abar = abar / abar[0]
    betas = (1 - abar[1:] / abar[:-1]).clamp(0, MAX_BETA)
    alphas_cumprod = torch.cumprod(1 - betas, dim=0)
    return Schedule(betas, alphas_cumprod, tuple(alphas_cumprod.tolist()))


def time_pairs(steps: int, timesteps: int, first: int | None = None) -> list[tuple[int, int]]:
    """(now, next) times of a run, evenly from the first one down; -1 is the clean end.

    Args:
        steps: How many.
        timesteps: T.
        first: Where the run starts; None: T - 1.

    Raises:
        ValueError: More steps than times to visit.

    Example:
        >>> time_pairs(2, 1000)
        [(999, 499), (499, -1)]
    """
    first = timesteps - 1 if first is None else first
    if not 1 <= steps <= first + 1:
        raise ValueError(f"steps must lie in 1..{first + 1}, got {steps}")
    times = torch.linspace(-1, first, steps + 1).int().tolist()[::-1]
    return list(pairwise(times))
