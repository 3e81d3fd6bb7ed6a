"""Is a start a checked value, and does it begin where Eq. 2 says?"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffinst.config import DiffusionConfig
from diffinst.diffusion.schedule import cosine_schedule
from diffinst.diffusion.signal import from_signal
from diffinst.diffusion.start import Start, begin, visited
from diffinst.structures import Encoded

SCHEDULE, CONFIG = cosine_schedule(1000), DiffusionConfig()
NAN = float("nan")


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([], r"shape \(0,\); give \(n, 4\) xyxy pixels, one box at least"),
        (torch.zeros(0, 4), "at least"),
        (torch.zeros(4), r"shape \(4,\)"),
        ([[1, 2, 3]], r"shape \(1, 3\)"),
        ([[0, 0, 9, 9], [1, 2, NAN, 4]], r"box 1 is \[1.0, 2.0, nan, 4.0\]; give finite"),
        ([[0, 0, float("inf"), 9]], "box 0"),
        ([[5, 0, 1, 9]], "x0 < x1"),
        ([[0, 0, 0, 9]], "x0 < x1"),
        ([["a", 0, 0, 9]], "no .n, 4. numbers"),
    ],
)
def test_boxes_that_are_none_are_refused(boxes: object, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Start(boxes, time=10)  # type: ignore[arg-type]
    assert str(caught.value).startswith("start: ") and "\n" not in str(caught.value)


def test_a_time_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="time is -1"):
        Start([[0, 0, 1, 1]], time=-1)


def test_lists_arrays_and_tensors_are_the_same() -> None:
    boxes = [[1, 2, 3, 4]]
    starts = [Start(b, 5) for b in (boxes, np.array(boxes), torch.tensor(boxes))]
    assert all(torch.equal(s.boxes, torch.tensor([[1.0, 2, 3, 4]])) for s in starts)
    assert len(starts[0]) == 1 and starts[0].boxes.dtype == torch.float32


def encoded(*sizes: tuple[int, int]) -> Encoded:
    return Encoded.for_masks(torch.zeros(len(sizes), 1, 8, 8), sizes)


def test_at_time_zero_boxes_stay_where_they_are_in_the_network_input() -> None:
    noise = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(0))
    start = Start([[10, 20, 30, 60]], time=0)
    image = encoded((50, 40))  # of an original of 100 x 80
    x = begin([start], [(100, 80)], image, noise, SCHEDULE, CONFIG)
    assert x.shape == (1, 3, 4) and x.dtype == torch.float64
    boxes = from_signal(x, image.scale, CONFIG)[0]
    torch.testing.assert_close(boxes[0], torch.tensor([5.0, 10, 15, 30]), rtol=0, atol=0.6)
    torch.testing.assert_close(x[0, 1:], noise[0, 1:].double())


def test_a_start_without_noise_is_told_a_time_and_stays_where_it_is() -> None:
    noise = torch.randn(1, 2, 4, generator=torch.Generator().manual_seed(0))
    image, boxes = encoded((50, 40)), [[5.0, 10, 15, 30]]
    x = begin([Start(boxes, 500, noised=False)], [(50, 40)], image, noise, SCHEDULE, CONFIG)
    torch.testing.assert_close(from_signal(x, image.scale, CONFIG)[0, :1], torch.tensor(boxes))
    moved = begin([Start(boxes, 500)], [(50, 40)], image, noise, SCHEDULE, CONFIG)
    assert (from_signal(moved, image.scale, CONFIG)[0, 0] - torch.tensor(boxes[0])).abs().max() > 1


def test_at_the_last_time_nothing_is_left_of_them() -> None:
    noise = torch.randn(1, 2, 4, generator=torch.Generator().manual_seed(0))
    starts = [Start([[0, 0, 1, 1], [3, 3, 9, 9]], time=999)]
    x = begin(starts, [(32, 32)], encoded((32, 32)), noise, SCHEDULE, CONFIG)
    torch.testing.assert_close(x, noise.double(), rtol=0, atol=2e-4)


def test_every_image_has_its_own_start() -> None:
    noise = torch.zeros(2, 2, 4)
    starts = [Start([[0, 0, 8, 8]], 0), Start([[0, 0, 16, 16], [16, 16, 32, 32]], 0)]
    image = encoded((32, 32), (32, 32))
    x = begin(starts, [(32, 32), (32, 32)], image, noise, SCHEDULE, CONFIG)
    boxes = from_signal(x, image.scale, CONFIG)
    torch.testing.assert_close(boxes[0, 0], torch.tensor([0.0, 0, 8, 8]), rtol=0, atol=0.01)
    torch.testing.assert_close(boxes[1, 1], torch.tensor([16.0, 16, 32, 32]), rtol=0, atol=0.01)


def test_what_does_not_fit_is_refused() -> None:
    image, noise = encoded((32, 32)), torch.zeros(1, 1, 4)
    with pytest.raises(ValueError, match="2 boxes, but 1 proposals; raise proposals to 2"):
        begin([Start([[0, 0, 1, 1]] * 2, 0)], [(32, 32)], image, noise, SCHEDULE, CONFIG)
    with pytest.raises(ValueError, match="time is 1000; allowed are 0 to 999"):
        begin([Start([[0, 0, 1, 1]], 1000)], [(32, 32)], image, noise, SCHEDULE, CONFIG)


def test_visited_times() -> None:
    assert visited(2, None, SCHEDULE) == [(999, 499), (499, -1)]
    late = Start([[0, 0, 1, 1]], 99)
    assert visited(2, None, SCHEDULE, [late, late]) == [(99, 49), (49, -1)]
    assert visited(2, (99, 3), SCHEDULE, [late]) == [(99, 3), (3, -1)]
    with pytest.raises(ValueError, match="time is 99, but times begin with 700"):
        visited(2, (700, 3), SCHEDULE, [late])
    with pytest.raises(ValueError, match=r"times \[0, 99\] in one batch"):
        visited(1, None, SCHEDULE, [late, Start([[0, 0, 1, 1]], 0)])


def test_boxes_that_the_signal_cannot_hold_are_refused() -> None:
    """Clamped to the signal's range they would shrink without a word."""
    small = DiffusionConfig(size_pixels=16)
    image, noise = encoded((32, 32)), torch.zeros(1, 2, 4)
    fits = Start([[0, 0, 8, 8]], 0)  # 16 pixels of the input, as the original is half as large
    x = begin([fits], [(16, 16)], image, noise, SCHEDULE, small)
    boxes = from_signal(x, image.scale, small)
    torch.testing.assert_close(boxes[0, 0], torch.tensor([0.0, 0, 16, 16]), rtol=0, atol=0.02)
    large = Start([[0, 0, 4, 4], [0, 0, 4, 9]], 0)
    with pytest.raises(ValueError, match=r"box 1 has a side of 18 pixels .* up to 16"):
        begin([large], [(16, 16)], image, noise, SCHEDULE, small)
