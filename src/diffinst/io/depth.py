"""Turns values of any depth into 8 bits: by an image's own range, or by that of the type."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from diffinst.io.image_error import ImageReadError

Pixels: TypeAlias = npt.NDArray[np.uint8]
Values: TypeAlias = npt.NDArray[np.generic]
Stretch: TypeAlias = Literal["percentile", "full"]

LOW, HIGH = 0.1, 99.9
"""Percentiles that become 0 and 255. A hot pixel lies outside, the few bright nuclei of an empty
field do not; darker cuts (1 and 99) cost accuracy on nuclei."""
FLOAT_SLACK = 1e-3
"""Float images may leave [0, 1] by this much (resampling overshoots) and are clipped."""
STRETCHED = (
    f"values of more than 8 bits are stretched, the percentiles {LOW} and {HIGH} of each image to "
    "black and white; exact scaling: --stretch full, Reading(stretch='full')"
)
"""The note on it: one text for all images, so that it is told once."""

SAMPLED = 4_000_000
"""Pixels that percentiles are taken from, in even rows and columns."""
_ROWS = 256  # scaled at once: the copies in between stay small


def as_uint8(values: Values, name: str, stretch: Stretch) -> tuple[Pixels, bool]:
    """Values of any depth as 8 bits.

    uint8 stays, and floats within [0, 1] become 0 to 255, whatever `stretch` says. One range holds
    for all colours, so that their ratios stay; alpha, the last of four, has the range of its type.
    Where the percentiles meet, the smallest and largest value are taken; an image of one value
    is black.

    Args:
        values: (height, width, 1, 3 or 4), not empty; integers or floats.
        name: Of the image, for errors.
        stretch: What to do with more than 8 bits: `percentile`, or the full range of the type,
            which only unsigned integers have.

    Returns:
        The values as uint8, rounded, and whether they were stretched.

    Raises:
        ImageReadError: NaN, infinity, or a type or values that are not allowed.

    Example:
        >>> as_uint8(np.array([[[100], [180], [300]]], np.uint16), "a.tif", "percentile")[0].ravel()
        array([  0, 102, 255], dtype=uint8)
    """
    kind, size = values.dtype.kind, values.dtype.itemsize
    if kind == "u" and size == 1:
        return values.astype(np.uint8, copy=False), False
    if kind not in "fui" or size == 1:
        raise ImageReadError(
            f"{name}: its type is {values.dtype}; allowed are uint8, other integers of 16 bits or "
            "more, and float; convert it"
        )
    low, high = float(values.min()), float(values.max())
    if not math.isfinite(low) or not math.isfinite(high):
        raise ImageReadError(f"{name}: holds NaN or infinite values; replace them")
    if kind == "f" and low >= -FLOAT_SLACK and high <= 1 + FLOAT_SLACK:
        return scaled(values, 0.0, 1.0), False
    if stretch == "full":
        if kind != "u":
            raise ImageReadError(_without_range(name, values.dtype, low, high))
        return scaled(values, 0.0, most(values.dtype)), False
    colours = values[..., :3]
    eight = scaled(colours, *own_range(colours))
    if values.shape[2] == 4:
        top = most(values.dtype) if kind == "u" else 1.0
        eight = np.concatenate([eight, scaled(values[..., 3:], 0.0, top)], axis=2)
    return eight, True


def own_range(values: Values) -> tuple[float, float]:
    """The percentiles that become black and white, of values (height, width, channels)."""
    step = max(1, math.ceil(math.sqrt(values.shape[0] * values.shape[1] / SAMPLED)))
    sample = values[::step, ::step].astype(np.float64)
    low, high = map(float, np.percentile(sample, [LOW, HIGH]))
    return (low, high) if low < high else (float(values.min()), float(values.max()))


def scaled(values: Values, low: float, high: float) -> Pixels:
    """`low` and below to 0, `high` and above to 255, rounded."""
    factor = 255 / (high - low) if high > low else 0.0
    eight = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), _ROWS):
        rows = values[top : top + _ROWS].astype(np.float64)
        eight[top : top + _ROWS] = np.rint(((rows - low) * factor).clip(0, 255))
    return eight


def most(dtype: np.dtype[np.generic]) -> float:
    """The largest value of a type of unsigned integers."""
    return float(2 ** (8 * dtype.itemsize) - 1)


def _without_range(name: str, dtype: np.dtype[np.generic], low: float, high: float) -> str:
    if dtype.kind == "f":
        return (
            f"{name}: its float values run from {low:g} to {high:g}; with stretch 'full' allowed "
            "are 0 to 1; divide them by the largest possible value, or use stretch 'percentile'"
        )
    return (
        f"{name}: its type is {dtype}, values from {low:g} to {high:g}; with stretch 'full' "
        "allowed are unsigned integers and floats from 0 to 1; convert it, or use stretch "
        "'percentile'"
    )
