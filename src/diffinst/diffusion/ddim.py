"""DDIM: which times are visited, and one step between two of them (DDIM, Eq. 12 and 16)."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from diffinst.diffusion.schedule import Schedule


def time_pairs(steps: int, timesteps: int) -> list[tuple[int, int]]:
    """(now, next) times of a run, from T - 1 down; -1 is the clean end.

    Example:
        >>> time_pairs(2, 1000)
        [(999, 499), (499, -1)]
    """
    if not 1 <= steps <= timesteps:
        raise ValueError(f"steps must lie in 1..{timesteps}, got {steps}")
    times = torch.linspace(-1, timesteps - 1, steps + 1).int().tolist()[::-1]
    return list(pairwise(times))


def ddim_step(
    x_t: Float[Tensor, "*shape"],
    x_start: Float[Tensor, "*shape"],
    noise: Float[Tensor, "*shape"],
    *,
    now: int,
    following: int,
    schedule: Schedule,
    eta: float = 1.0,
) -> Float64[Tensor, "*shape"]:
    """x at the next time, from the present x and the network's idea of the clean signal.

    Args:
        x_t: (..., 4) signal, not clamped.
        x_start: (..., 4) predicted x_0 in [-s, s].
        noise: (..., 4) N(0, 1).
        now: Present time.
        following: Next time, >= 0.
        schedule: alpha-bar.
        eta: 0: deterministic; 1: as much noise as DDPM (the paper).

    Returns:
        (..., 4) float64.
    """
    abar, abar_next = schedule.alpha_bar(now), schedule.alpha_bar(following)
    eps = schedule.predict_noise(x_t, x_start, now)
    sigma = eta * math.sqrt((1 - abar / abar_next) * (1 - abar_next) / (1 - abar))
    direction = math.sqrt(1 - abar_next - sigma**2)
    return x_start.double() * math.sqrt(abar_next) + direction * eps + sigma * noise.double()
