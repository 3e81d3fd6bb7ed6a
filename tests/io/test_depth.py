"""Do 8 bits hold what an image of more bits shows, whatever part of the range it uses?"""

import numpy as np
import pytest

from diffinst.io import depth
from diffinst.io.depth import as_uint8
from diffinst.io.image_error import ImageReadError


def scene(top: int, dtype: type = np.uint16) -> np.ndarray:
    """A ramp of 100x100 pixels from 0 to `top`, grey."""
    return np.linspace(0, top, 10_000).astype(dtype).reshape(100, 100, 1)


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_the_bits_that_are_used_do_not_matter(bits: int) -> None:
    eight, stretched = as_uint8(scene(2**bits - 1), "a.tif", "percentile")
    wanted = np.linspace(0, 255, 10_000).reshape(100, 100, 1)
    assert stretched and np.abs(eight - wanted).max() < 1
    deep, _ = as_uint8(scene(2**bits - 1).astype(np.uint32), "a.tif", "percentile")
    assert np.array_equal(deep, eight)


def test_full_keeps_the_range_of_the_type() -> None:
    eight, stretched = as_uint8(scene(4095), "a.tif", "full")
    assert not stretched and eight.max() == 16  # 4095 / 257
    wide, _ = as_uint8(np.array([[[0], [2**32 - 1]]], np.uint32), "a.tif", "full")
    assert wide.ravel().tolist() == [0, 255]


def test_a_hot_pixel_changes_nothing() -> None:
    hot = scene(4095)
    hot[50, 50] = 65535
    before, _ = as_uint8(scene(4095), "a.tif", "percentile")
    after, _ = as_uint8(hot, "a.tif", "percentile")
    assert (np.abs(after.astype(int) - before) > 1).sum() == 1  # itself


@pytest.mark.parametrize("value", [0, 7, 65535])
def test_an_image_of_one_value_is_black(value: int) -> None:
    eight, _ = as_uint8(np.full((4, 4, 1), value, np.uint16), "a.tif", "percentile")
    assert not eight.any()


def test_less_than_a_thousandth_is_still_seen() -> None:
    values = np.zeros((100, 100, 1), np.uint16)
    values[0, :5] = 900
    eight, _ = as_uint8(values, "a.tif", "percentile")
    assert eight[0, :5].tolist() == [[255]] * 5 and eight.sum() == 5 * 255


def test_colours_keep_their_ratios_and_alpha_its_range() -> None:
    values = np.zeros((100, 100, 4), np.uint16)
    values[..., 0], values[..., 1] = scene(4095)[..., 0], scene(4095)[..., 0] // 2
    values[..., 3] = 65535
    eight, _ = as_uint8(values, "a.tif", "percentile")
    half = eight[..., 0].astype(float) / 2
    assert np.abs(eight[..., 1] - half).max() <= 1.5 and not eight[..., 2].any()
    assert (eight[..., 3] == 255).all()


def test_floats_up_to_1_stay_and_others_are_stretched() -> None:
    ramp = np.linspace(0, 0.1, 100).reshape(10, 10, 1)
    eight, stretched = as_uint8(ramp, "a.tif", "percentile")
    assert not stretched and eight.max() == 26  # 0.1 * 255
    eight, stretched = as_uint8(ramp * 1e5 - 300, "a.tif", "percentile")
    assert stretched and (eight.min(), eight.max()) == (0, 255)
    with pytest.raises(ImageReadError, match=r"a\.tif: its float values run from -300 to 9700; wi"):
        as_uint8(ramp * 1e5 - 300, "a.tif", "full")


def test_percentiles_of_a_large_image_are_those_of_a_sample(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, _ = as_uint8(scene(4095), "a.tif", "percentile")
    monkeypatch.setattr(depth, "SAMPLED", 2500)
    monkeypatch.setattr(depth, "_ROWS", 7)
    sampled, _ = as_uint8(scene(4095), "a.tif", "percentile")
    assert np.abs(whole.astype(int) - sampled).max() <= 4  # every second row and column
