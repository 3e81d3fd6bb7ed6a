"""Do images get the size and the padding they should?"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffinst.ops.images import fit_size, pad_batch, resize


@pytest.mark.parametrize(
    ("size", "short_side", "zoom", "long_side", "wanted"),
    [
        ((480, 640), 800, 1.0, 1333, (800, 1067)),
        ((640, 480), 800, 1.0, 1333, (1067, 800)),
        ((100, 400), 800, 1.0, 1333, (333, 1333)),  # the long side decides
        ((100, 50), None, 2.0, 1333, (200, 100)),
        ((100, 50), None, 2.0, 150, (150, 75)),
        ((1, 4000), 800, 1.0, 1333, (1, 1333)),  # never less than a pixel
    ],
)
def test_sizes_by_hand(
    size: tuple[int, int],
    short_side: int | None,
    zoom: float,
    long_side: int,
    wanted: tuple[int, int],
) -> None:
    assert fit_size(size, short_side=short_side, zoom=zoom, long_side=long_side) == wanted


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_long_side_is_never_exceeded(height: int, width: int) -> None:
    fitted = fit_size((height, width), short_side=800, zoom=1.0, long_side=1333)
    assert 1 <= min(fitted) <= 800 and max(fitted) <= 1333


def test_resize_keeps_the_range_and_what_already_fits() -> None:
    image = torch.randint(0, 256, (3, 6, 8), dtype=torch.uint8)
    assert torch.equal(resize(image, (6, 8)), image.float())
    larger = resize(image, (15, 9))
    assert larger.shape == (3, 15, 9) and larger.dtype == torch.float32
    assert larger.min() >= image.min() and larger.max() <= image.max()


def test_resize_averages_when_it_shrinks() -> None:
    checkers = torch.tensor([[0, 200], [200, 0]], dtype=torch.uint8).repeat(3, 8, 8)
    small = resize(checkers, (4, 4))
    torch.testing.assert_close(small, torch.full((3, 4, 4), 100.0), rtol=0, atol=1)


def test_padding_by_hand() -> None:
    batch = pad_batch([torch.full((3, 2, 3), 7.0), torch.full((3, 1, 5), 9.0)], divisor=4)
    assert batch.pixels.shape == (2, 3, 4, 8)
    assert batch.sizes == ((2, 3), (1, 5))
    assert batch.pixels[0, 0].sum() == 6 * 7 and batch.pixels[0, 0, :2, :3].min() == 7
    assert batch.pixels[1, 2].sum() == 5 * 9


def test_fitting_images_are_not_padded() -> None:
    image = torch.ones(3, 32, 64, dtype=torch.uint8)
    batch = pad_batch([image])
    assert torch.equal(batch.pixels[0], image) and batch.pixels.dtype == torch.uint8
