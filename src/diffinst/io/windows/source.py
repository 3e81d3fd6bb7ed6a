"""What a windowed image promises, and how planes of any depth become one: one range for all."""

from __future__ import annotations

import math
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from diffinst.config import Reading
from diffinst.io.depth import (
    FLOAT_SLACK,
    SAMPLED,
    STRETCHED,
    Pixels,
    Values,
    most,
    own_range,
    scaled,
)
from diffinst.io.image_error import ImageReadError
from diffinst.io.images import on_white
from diffinst.io.planes import RGBA

Transform: TypeAlias = tuple[float, float, float, float, float, float]
"""(a, b, c, d, e, f): map x = a * column + b * row + c, map y = d * column + e * row + f."""
WINDOWS, SIDE = 8, 256  # per axis, and pixels of each, where there is no small level to sample
ONE_RANGE = "of the whole image, from a sample of it, alike in all tiles"


@runtime_checkable
class WindowedImage(Protocol):
    """An image that is read window by window.

    Attributes:
        name: For messages.
        shape: (height, width) of level 0, the finest.
        sizes: (height, width) of each level; the first is `shape`.
        levels: How many times smaller each level is than level 0, along the longer side; the first
            is 1. Along the other one it may be a little more or less, as sizes are whole numbers.
        mpp: Micrometres per pixel of level 0; None: unknown.
        transform: From pixels of level 0 to map coordinates; None: there are none.
        crs: The coordinate system of the map, such as EPSG:32633; None: unknown.
        notes: What is to be told of how it is read, a line each.
    """

    name: str
    shape: tuple[int, int]
    sizes: tuple[tuple[int, int], ...]
    levels: tuple[float, ...]
    mpp: float | None
    transform: Transform | None
    crs: str | None
    notes: tuple[str, ...]

    def read(self, y: int, x: int, height: int, width: int, level: int = 0) -> Pixels:
        """RGB uint8 (height, width, 3) of a window inside a level, in that level's pixels.

        Raises:
            ImageReadError: It cannot be decoded; names the file and the window.
        """
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


class Planes(Protocol):
    """What one reader does: values of any depth, of the page and channel that are asked for.

    Attributes:
        name: As in `WindowedImage`, like those that follow.
        sizes: (height, width) of each level.
        mpp: As there.
        transform: As there.
        crs: As there.
        notes: As there.
        missing: The value of deep pixels that stands for no data; None: there is none.
    """

    name: str
    sizes: tuple[tuple[int, int], ...]
    mpp: float | None
    missing: float | None
    transform: Transform | None
    crs: str | None
    notes: tuple[str, ...]

    def values(self, y: int, x: int, height: int, width: int, level: int) -> Values:
        """(height, width, 1, 3 or 4) of a window inside a level."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


class Ranged:
    """A `WindowedImage` of planes; deep values are stretched by one range for the whole image.

    The range comes from the smallest level of at least `SIDE` pixels, or, where no level is small,
    from `WINDOWS` x `WINDOWS` windows spread evenly over the image. Pixels without data, NaN and
    infinity among them, have no part in it and are black.

    Args:
        planes: Closed with this.
        reading: How deep values become 8 bits.

    Raises:
        ImageReadError: Values of a type that is not read.
    """

    def __init__(self, planes: Planes, reading: Reading) -> None:
        self._planes = planes
        self.name, self.mpp = planes.name, planes.mpp
        self.transform, self.crs = planes.transform, planes.crs
        self.shape, self.sizes = planes.sizes[0], planes.sizes
        longer = self.shape.index(max(self.shape))
        self.levels = tuple(self.shape[longer] / size[longer] for size in planes.sizes)
        self.notes = planes.notes
        try:
            self._range = self._found_range(reading)
        except BaseException:
            planes.close()
            raise

    def read(self, y: int, x: int, height: int, width: int, level: int = 0) -> Pixels:
        """See `WindowedImage`."""
        values = self._values(y, x, height, width, level)
        if self._range is None:
            eight: Pixels = values.astype(np.uint8, copy=False)
        else:
            without = self._without_data(values)
            eight = scaled(np.where(without[..., None], 0, values[..., :3]), *self._range)
            eight[without] = 0
            if values.shape[2] == RGBA:
                top = most(values.dtype) if values.dtype.kind == "u" else 1.0
                eight = np.concatenate([eight, scaled(values[..., 3:], 0.0, top)], axis=2)
        if eight.shape[2] == RGBA:
            eight = on_white(eight)
        return np.array(np.broadcast_to(eight, (height, width, 3)), order="C")

    def close(self) -> None:
        """See `WindowedImage`."""
        self._planes.close()

    def _values(self, y: int, x: int, height: int, width: int, level: int) -> Values:
        where = f"window y {y}, x {x}, {height}x{width} (height x width)"
        if level:
            where += f" of level {level}"
        try:
            values = self._planes.values(y, x, height, width, level)
        except ImageReadError:
            raise
        except MemoryError as error:
            raise ImageReadError(f"{self.name}: {where} does not fit in memory") from error
        except Exception as error:  # of decoders, of many kinds
            raise ImageReadError(
                f"{self.name}: {where} cannot be decoded ({error or type(error).__name__}); the "
                "file is damaged or cut short: copy or download it again"
            ) from error
        if values.shape[:2] != (height, width):
            raise ImageReadError(
                f"{self.name}: {where} gives {values.shape[0]}x{values.shape[1]} pixels only; the "
                "file is cut short: copy or download it again"
            )
        return values

    def _without_data(self, values: Values) -> npt.NDArray[np.bool_]:
        """(height, width) pixels of deep values where a colour is no number, or all are missing."""
        colours = values[..., :3]
        without = np.zeros(colours.shape[:2], bool)
        if values.dtype.kind == "f":
            without |= ~np.isfinite(colours).all(2)
        if self._planes.missing is not None:
            without |= (colours == self._planes.missing).all(2)
        return without

    def _found_range(self, reading: Reading) -> tuple[float, float] | None:
        """What becomes black and white; None: values are 8 bits already."""
        probe = self._values(0, 0, 1, 1, 0)
        kind, size = probe.dtype.kind, probe.dtype.itemsize
        if kind == "u" and size == 1:
            return None
        if kind not in "fui" or size == 1:
            raise ImageReadError(
                f"{self.name}: its type is {probe.dtype}; allowed are uint8, other integers of 16 "
                "bits or more, and float; convert it"
            )
        if reading.stretch == "full" and kind == "u":
            return 0.0, most(probe.dtype)
        sample = self._with_data(self._sample())
        if not len(sample):
            sample = self._searched()
        if not len(sample):
            return 0.0, 0.0
        low, high = float(sample.min()), float(sample.max())
        if kind == "f" and low >= -FLOAT_SLACK and high <= 1 + FLOAT_SLACK:
            return 0.0, 1.0
        if reading.stretch == "full":
            raise ImageReadError(
                f"{self.name}: its type is {probe.dtype}, values from {low:g} to {high:g}; with "
                "stretch 'full' allowed are unsigned integers and floats from 0 to 1; convert it, "
                "or use stretch 'percentile'"
            )
        self.notes = (*self.notes, STRETCHED.replace("of each image", ONE_RANGE))
        return own_range(sample)

    def _with_data(self, values: Values) -> Values:
        """(n, 1, channels) of the pixels that have data."""
        kept: Values = values[~self._without_data(values)][:, None]
        return kept

    def _searched(self) -> Values:
        """The same of the first windows that have any, where a sample has met none."""
        height, width = self.shape
        found: list[Values] = []
        for y in range(0, height, SIDE):
            for x in range(0, width, SIDE):
                part = self._values(y, x, min(SIDE, height - y), min(SIDE, width - x), 0)
                found.append(self._with_data(part[..., :3]))
            if sum(map(len, found)) >= SAMPLED:
                break
        return np.concatenate(found)

    def _sample(self) -> Values:
        """(h, w, 1 or 3) of a small level, or of windows side by side."""
        for level in reversed(range(len(self._planes.sizes))):
            height, width = self._planes.sizes[level]
            if min(height, width) >= SIDE or level == 0:
                break
        if height * width <= SAMPLED:
            return self._values(0, 0, height, width, level)[..., :3]
        high, wide = min(SIDE, height), min(SIDE, width)
        count = (math.ceil(min(WINDOWS, height / high)), math.ceil(min(WINDOWS, width / wide)))
        tops, lefts = (
            [round(i * (length - side) / max(1, n - 1)) for i in range(n)]
            for length, side, n in ((height, high, count[0]), (width, wide, count[1]))
        )
        parts = [self._values(y, x, high, wide, level)[..., :3] for y in tops for x in lefts]
        return np.concatenate(parts)
