"""Does the schedule go from all signal to all noise, and can noise be read back?"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffinst.diffusion.schedule import MAX_BETA, cosine_schedule, time_pairs

SCHEDULE = cosine_schedule(1000)


def test_two_steps_by_hand() -> None:
    # abar = cos^2((t / 2 + 0.008) / 1.008 * pi / 2), over its value at 0
    at = [math.cos((t / 2 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(3)]
    schedule = cosine_schedule(2)
    assert schedule.alpha_bar(0) == pytest.approx(at[1] / at[0])
    assert float(schedule.betas[1]) == MAX_BETA  # 1 - 0 / ... is cut
    assert schedule.alpha_bar(1) == pytest.approx(at[1] / at[0] * (1 - MAX_BETA))


@pytest.mark.parametrize("timesteps", [2, 10, 100, 1000, 4000])
def test_alpha_bar_falls_from_one_to_nothing(timesteps: int) -> None:
    schedule = cosine_schedule(timesteps)
    assert len(schedule) == timesteps and schedule.alphas_cumprod.dtype == torch.float64
    assert (schedule.alphas_cumprod.diff() < 0).all()
    assert 0 < schedule.alpha_bar(timesteps - 1) < schedule.alpha_bar(0) < schedule.alpha_bar(-1)
    assert schedule.alpha_bar(-1) == 1 and schedule.alpha_bar(timesteps - 1) < 1e-3


@pytest.mark.parametrize("t", [-2, 1000])
def test_times_outside_are_refused(t: int) -> None:
    with pytest.raises(ValueError, match=rf"\[-1, 999\], got {t}"):
        SCHEDULE.alpha_bar(t)


def test_time_zero_corrupts_almost_nothing_and_the_last_everything() -> None:
    x_start, noise = torch.full((2, 3, 4), 1.5), torch.full((2, 3, 4), -1.0)
    x_t = SCHEDULE.add_noise(x_start, noise, torch.tensor([0, 999]))
    assert x_t.shape == (2, 3, 4) and x_t.dtype == torch.float64
    assert (x_t[0] - 1.5).abs().max() < 0.01  # sqrt(1 - abar_0) = 0.0064
    assert (x_t[1] + 1).abs().max() < 1e-4


def test_variance_is_kept() -> None:
    generator = torch.Generator().manual_seed(0)
    x_start, noise = torch.randn(2, 4, 20_000, generator=generator)
    x_t = SCHEDULE.add_noise(x_start, noise, torch.tensor([10, 300, 600, 990]))
    torch.testing.assert_close(x_t.var(1), torch.ones(4).double(), rtol=0.05, atol=0)


@given(st.integers(0, 999), st.integers(0, 2**31))
def test_noise_is_read_back(t: int, seed: int) -> None:
    x_start, noise = torch.randn(2, 1, 5, 4, generator=torch.Generator().manual_seed(seed))
    x_t = SCHEDULE.add_noise(x_start, noise, torch.tensor([t]))
    read = SCHEDULE.predict_noise(x_t, x_start, t)
    torch.testing.assert_close(read, noise.double(), rtol=0, atol=1e-4)


def test_no_boxes() -> None:
    nothing = torch.zeros(1, 0, 4)
    assert SCHEDULE.add_noise(nothing, nothing, torch.tensor([5])).shape == (1, 0, 4)
    assert SCHEDULE.predict_noise(nothing, nothing, 5).shape == (1, 0, 4)


def test_times_by_hand() -> None:
    assert time_pairs(1, 1000) == [(999, -1)]
    assert time_pairs(4, 1000) == [(999, 749), (749, 499), (499, 249), (249, -1)]


@given(st.integers(2, 1000), st.data())
def test_times_fall_from_the_last_to_the_clean_end(timesteps: int, data: st.DataObject) -> None:
    steps = data.draw(st.integers(1, timesteps))
    pairs = time_pairs(steps, timesteps)
    assert len(pairs) == steps
    assert pairs[0][0] == timesteps - 1 and pairs[-1][1] == -1
    assert all(now >= following for now, following in pairs)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(pairs))


@pytest.mark.parametrize("steps", [0, -1, 11])
def test_impossible_numbers_of_steps_are_named(steps: int) -> None:
    with pytest.raises(ValueError, match=rf"1\.\.10, got {steps}"):
        time_pairs(steps, 10)


def test_times_from_a_later_start() -> None:
    assert time_pairs(2, 1000, first=99) == [(99, 49), (49, -1)]
    assert time_pairs(1, 1000, first=0) == [(0, -1)]
    with pytest.raises(ValueError, match=r"1\.\.1, got 2"):
        time_pairs(2, 1000, first=0)
