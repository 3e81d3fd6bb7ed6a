"""Every form of a COCO segmentation draws the same mask; broken ones are refused."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as mask_utils

from diffinst.datasets.segmentation import RLE, DatasetError, rasterize

# 4 rows, 6 columns; the 2x2 square whose first pixel is row 1, column 2. Down the columns: 9
# background pixels (two columns and one pixel), then 2 set, 2 not, 2 set, and 9 to the end of 24.
SQUARE_POLYGON = [2.0, 1.0, 4.0, 1.0, 4.0, 3.0, 2.0, 3.0]
SQUARE_RUNS = [9, 2, 2, 2, 9]
SQUARE_MASK = np.array([[0] * 6, [0, 0, 1, 1, 0, 0], [0, 0, 1, 1, 0, 0], [0] * 6], bool)


def compressed(mask: np.ndarray) -> RLE:
    rle = mask_utils.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": rle["counts"].decode()}


@pytest.mark.parametrize(
    "segmentation",
    [
        pytest.param([SQUARE_POLYGON], id="polygon"),
        pytest.param([[2, 1, 3, 1, 3, 3, 2, 3], [3, 1, 4, 1, 4, 3, 3, 3]], id="two polygons"),
        pytest.param([[0, 0, 6, 4], SQUARE_POLYGON], id="a short polygon is no box"),
        pytest.param({"size": [4, 6], "counts": SQUARE_RUNS}, id="runs"),
        pytest.param(compressed(SQUARE_MASK), id="compressed, str"),
        pytest.param(mask_utils.encode(np.asfortranarray(SQUARE_MASK, np.uint8)), id="bytes"),
    ],
)
def test_every_form_draws_the_same_square(segmentation: Any) -> None:
    mask = rasterize(segmentation, 4, 6)
    assert mask.dtype == bool
    assert mask.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(mask, SQUARE_MASK)


@pytest.mark.parametrize(
    "segmentation", [[], [[1, 1, 2, 2]], {"size": [4, 6], "counts": [24]}], ids=str
)
def test_nothing_draws_an_empty_mask(segmentation: Any) -> None:
    mask = rasterize(segmentation, 4, 6)
    assert mask.shape == (4, 6)
    assert not mask.any()


def test_rasterize_refuses_rle_of_another_size() -> None:
    with pytest.raises(DatasetError, match=r"its RLE is of size \[4, 6\] .* of \[6, 4\]; correct"):
        rasterize(compressed(SQUARE_MASK), 6, 4)


def test_rasterize_refuses_rle_that_would_decode_to_garbage() -> None:
    with pytest.raises(DatasetError, match="its RLE counts cover 9 pixels, the image has 4 x 6"):
        rasterize({"size": [4, 6], "counts": "9"}, 4, 6)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_compressed_rle_round_trip(height: int, width: int, seed: int, density: float) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < density
    np.testing.assert_array_equal(rasterize(compressed(mask), height, width), mask)


def test_long_runs_round_trip() -> None:
    mask = np.zeros((3000, 2000), bool)  # runs of millions take five characters
    mask[:, 1500:] = True
    mask[7, 3] = True
    np.testing.assert_array_equal(rasterize(compressed(mask), 3000, 2000), mask)


@pytest.mark.parametrize("wild", [2e6, -2e6, float("inf"), float("nan")])
def test_coordinates_that_would_crash_the_drawing_are_refused(wild: float) -> None:
    for place in (0, 3):
        polygon = list(SQUARE_POLYGON)
        polygon[place] = wild
        with pytest.raises(DatasetError, match="a polygon has coordinates from"):
            rasterize([polygon], 4, 6)
