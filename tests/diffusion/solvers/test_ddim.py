"""Does one step land where the formula says?"""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffinst.diffusion.schedule import cosine_schedule
from diffinst.diffusion.solvers.ddim import Ddim

SCHEDULE = cosine_schedule(1000)


def test_a_step_without_fresh_noise_follows_the_path() -> None:
    """With the true x_0 and eta 0, the step lands on Eq. 2 at the next time, same noise."""
    x_start, noise = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    at = [SCHEDULE.add_noise(x_start[None], noise[None], torch.tensor([t]))[0] for t in (700, 200)]
    moved = Ddim(eta=0).step(
        at[0], x_start, torch.randn(6, 4), now=700, following=200, schedule=SCHEDULE
    )
    assert moved.dtype == torch.float64
    torch.testing.assert_close(moved, at[1])


def test_sigma_by_hand() -> None:
    zero, one = torch.zeros(1, 4), torch.ones(1, 4)
    abar, following = SCHEDULE.alpha_bar(999), SCHEDULE.alpha_bar(499)
    sigma = math.sqrt((1 - abar / following) * (1 - following) / (1 - abar))
    moved = Ddim(eta=0.5).step(zero, zero, one, now=999, following=499, schedule=SCHEDULE)
    assert moved.tolist() == [[pytest.approx(0.5 * sigma)] * 4]


@given(st.integers(2, 1000), st.floats(0, 1), st.data())
def test_every_step_is_finite_and_keeps_the_variance(
    timesteps: int, eta: float, data: st.DataObject
) -> None:
    schedule = cosine_schedule(timesteps)
    now = data.draw(st.integers(1, timesteps - 1))
    following = data.draw(st.integers(0, now - 1))
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    # x_0 = 0 and x_t = sqrt(1 - abar): eps is 1; its share and the noise's make up 1 - abar'
    x_t = torch.full((1,), math.sqrt(1 - schedule.alpha_bar(now)), dtype=torch.float64)
    step = partial(Ddim(eta).step, now=now, following=following, schedule=schedule)
    eps_share, noise_share = float(step(x_t, zero, zero)), float(step(zero, zero, one))
    variance = eps_share**2 + noise_share**2
    assert variance == pytest.approx(1 - schedule.alpha_bar(following), rel=1e-6)


def test_no_proposals() -> None:
    nothing = torch.zeros(2, 0, 4)
    moved = Ddim().step(nothing, nothing, nothing, now=9, following=4, schedule=SCHEDULE)
    assert moved.shape == (2, 0, 4)
