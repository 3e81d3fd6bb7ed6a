"""Do boxes survive the way into the signal and back, and what does corruption do to them?"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffinst.config import DiffusionConfig
from diffinst.diffusion.noise import draw_noise
from diffinst.diffusion.schedule import cosine_schedule
from diffinst.diffusion.signal import (
    MIN_SIZE,
    Corruption,
    corrupt,
    from_signal,
    kept_objects,
    pad_start,
    to_signal,
    to_unit,
)

PAPER = DiffusionConfig()
SCHEDULE = cosine_schedule(1000)
SCALE = torch.tensor([200.0, 100.0, 200.0, 100.0])  # an image of 100 rows and 200 columns


def draws(proposals: int, objects: int, t: int, seed: int = 0) -> Corruption:
    generator = torch.Generator().manual_seed(seed)
    drawn = Corruption.draw(proposals, objects, PAPER, generator)
    return Corruption(t, drawn.noise, drawn.placeholder, drawn.order)


def test_signal_by_hand() -> None:
    # centre (100, 50) is the middle: 0; width 50 of 200 is 1/4: (1/2 - 1) * 2 = -1; all rows: 2
    x = to_signal(torch.tensor([[75.0, 0.0, 125.0, 100.0]]), SCALE, PAPER)
    assert x.tolist() == [[0, 0, -1, 2]]
    assert from_signal(x, SCALE, PAPER).tolist() == [[75, 0, 125, 100]]


def test_sizes_in_pixels() -> None:
    config = DiffusionConfig(size_pixels=64)
    # the centre is the image's middle; 32 of 64 pixels is the middle of the signal, 64 its end
    boxes = torch.tensor([[84.0, 18.0, 116.0, 82.0]])
    assert to_unit(boxes, SCALE, config).tolist() == [[0.5, 0.5, 0.5, 1]]
    x = to_signal(boxes, SCALE, config)
    assert x.tolist() == [[0, 0, 0, 2]]
    assert from_signal(x, SCALE, config).tolist() == boxes.tolist()


def test_signal_is_clamped_on_the_way_back() -> None:
    boxes = from_signal(torch.tensor([[0.0, 0.0, 9.0, 9.0], [-9.0, 9.0, -9.0, -9.0]]), SCALE, PAPER)
    assert boxes.tolist() == [[0, 0, 200, 100], [0, 100, 0, 100]]


@given(
    st.lists(st.tuples(*[st.floats(0, 1, width=32)] * 4), max_size=5),
    st.sampled_from([0.5, 1.0, 2.0]),
    st.sampled_from([None, 48.0]),
)
def test_boxes_round_trip(
    rows: list[tuple[float, ...]], scale: float, size_pixels: float | None
) -> None:
    config = DiffusionConfig(scale=scale, size_pixels=size_pixels)
    x = (torch.tensor(rows).reshape(-1, 4) * 2 - 1) * scale
    boxes = from_signal(x, SCALE, config)
    assert boxes.dtype == torch.float32
    torch.testing.assert_close(to_signal(boxes, SCALE, config), x, rtol=0, atol=1e-4)


def test_float64_signal_gives_float32_boxes() -> None:
    assert from_signal(torch.zeros(3, 4).double(), SCALE, PAPER).dtype == torch.float32


def test_all_objects_stay_or_a_drawn_subset_in_order() -> None:
    order = torch.tensor([3, 0, 2, 1])
    assert kept_objects(4, 4, order).tolist() == [0, 1, 2, 3]
    assert kept_objects(4, 2, order).tolist() == [0, 3]
    assert kept_objects(0, 2, order[:0]).tolist() == []


def test_padding_by_hand() -> None:
    placeholder = torch.tensor([[0.0, 6.0, -3.0, -6.0], [1.0, 1.0, 1.0, 1.0], [9.0, 9.0, 9.0, 9.0]])
    padded = pad_start(torch.tensor([[0.1, 0.2, 0.3, 0.4]]), placeholder, 3)
    wanted = [[0.1, 0.2, 0.3, 0.4], [0.5, 1.5, MIN_SIZE, MIN_SIZE], [2 / 3] * 4]
    torch.testing.assert_close(padded, torch.tensor(wanted))


def test_an_image_without_objects_starts_with_a_full_box() -> None:
    padded = pad_start(torch.zeros(0, 4), torch.zeros(2, 4), 2)
    assert padded.tolist() == [[0.5, 0.5, 1, 1], [0.5, 0.5, 0.5, 0.5]]


@pytest.mark.parametrize("objects", [0, 1, 5, 6])
def test_time_zero_corrupts_almost_nothing(objects: int) -> None:
    generator = torch.Generator().manual_seed(objects)
    boxes_unit = torch.rand(objects, 4, generator=generator)
    x_start, x_t = corrupt(boxes_unit, draws(6, objects, t=0), SCHEDULE, PAPER)
    assert x_start.shape == x_t.shape == (6, 4) and x_t.dtype == torch.float64
    assert (x_t - x_start).abs().max() < 0.05
    torch.testing.assert_close(x_start[:objects], boxes_unit * 4 - 2)


def test_the_last_time_leaves_only_the_noise() -> None:
    drawn = draws(4, 2, t=999)
    _, x_t = corrupt(torch.rand(2, 4), drawn, SCHEDULE, PAPER)
    torch.testing.assert_close(x_t, drawn.noise.double(), rtol=0, atol=2e-3)


def test_padding_and_objects_both_get_noise() -> None:
    x_start, x_t = corrupt(torch.rand(2, 4), draws(5, 2, t=500), SCHEDULE, PAPER)
    assert ((x_t - x_start).abs().amax(1) > 0.05).all()


def test_draws_repeat_with_their_generator() -> None:
    first, again, other = (
        Corruption.draw(5, 3, PAPER, torch.Generator().manual_seed(seed)) for seed in (7, 7, 8)
    )
    assert first.t == again.t and torch.equal(first.noise, again.noise)
    assert torch.equal(first.placeholder, again.placeholder)
    assert torch.equal(first.order, again.order)
    assert not torch.equal(first.noise, other.noise)
    assert sorted(first.order.tolist()) == [0, 1, 2]


@pytest.mark.parametrize(("power", "mean"), [(1.0, 499.5), (2.0, 2 / 3 * 1000)])
def test_times_cover_the_whole_range(power: float, mean: float) -> None:
    config = DiffusionConfig(time_power=power)
    generator = torch.Generator().manual_seed(0)
    times = [Corruption.draw(1, 0, config, generator).t for _ in range(3000)]
    assert min(times) >= 0 and max(times) in range(990, 1000)
    assert sum(times) / len(times) == pytest.approx(mean, rel=0.03)


@pytest.mark.parametrize("kind", ["normal", "sobol"])
def test_noise_repeats_with_its_generator(kind: str) -> None:
    config = DiffusionConfig(noise=kind)
    first, again, other = (
        draw_noise(64, config, torch.Generator().manual_seed(seed)) for seed in (7, 7, 8)
    )
    assert first.shape == (64, 4) and first.dtype == torch.float32
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.isfinite(first).all()


def test_sobol_centres_leave_no_holes() -> None:
    """64 points of a scrambled Sobol sequence: four in each of 16 squares of the image."""
    config = DiffusionConfig(noise="sobol")
    noise = draw_noise(64, config, torch.Generator().manual_seed(0))
    squares = ((noise[:, :2] + 2) / 4 * 4).floor().clamp(0, 3).long()
    counts = torch.bincount(squares[:, 0] * 4 + squares[:, 1], minlength=16)
    assert counts.tolist() == [4] * 16
    assert noise[:, 2:].mean().item() == pytest.approx(0, abs=0.1)
    assert noise[:, 2:].std().item() == pytest.approx(1, abs=0.1)
