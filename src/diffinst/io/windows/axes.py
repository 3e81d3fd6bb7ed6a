"""Windows of an array with axes T, Z, C, Y, X: which page and channels become the image."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from diffinst.config import Reading
from diffinst.io.depth import Values
from diffinst.io.image_error import ImageReadError
from diffinst.io.planes import RGBA, first_page, pages_note, projected, which_channels

LARGEST_CHUNK = 2**30  # bytes that are decoded for one pixel at most


class ArrayLike(Protocol):
    """What zarr arrays and memory maps have in common."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all axes."""
        ...

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Of the values."""
        ...

    def __getitem__(self, key: tuple[int | slice, ...], /) -> object:
        """A window of it."""
        ...


class Axes:
    """Chooses among the axes of arrays of one layout.

    Args:
        name: Of the image, for errors.
        axes: One letter per axis: Y, X, C or S (channels, samples), any others are pages.
        shape: Of level 0.
        reading: Page and channel, or how all pages become one.
        alpha: Four samples are RGBA.

    Attributes:
        notes: What is to be told.

    Raises:
        ImageReadError: No such page or channel, or no two axes Y and X.
    """

    def __init__(
        self, name: str, axes: str, shape: tuple[int, ...], reading: Reading, *, alpha: bool
    ) -> None:
        layout = f"{axes} {'x'.join(map(str, shape))}"
        if axes.count("Y") != 1 or axes.count("X") != 1 or ("C" in axes and "S" in axes):
            raise ImageReadError(
                f"{name}: its axes are {layout}; one Y, one X, and C or S (one of them) are "
                "allowed; save it as an image of pages or channels"
            )
        self.axes = axes
        self.colour = next((axis for axis in axes if axis in "CS"), None)
        channels = shape[axes.index(self.colour)] if self.colour else 1
        self.channels = which_channels(
            channels, reading.channel, name, layout, alpha=alpha or self.colour == "S"
        )
        if len(self.channels) == RGBA and not alpha:
            self.channels = self.channels[:3]
        self.pages = [i for i, axis in enumerate(axes) if axis not in "YXCS"]
        self.page_shape = tuple(shape[i] for i in self.pages)
        count = math.prod(self.page_shape)
        first = first_page(reading, count, name)
        self.project = reading.project
        self.numbers = [first] if self.project is None else list(range(count))
        self.notes = pages_note(reading, count, f"{name} ({layout})")
        if channels == 3 and self.colour == "C" and reading.channel is None:
            self.notes.append(
                f"{name}: its 3 channels are read as red, green and blue; choose one by "
                "--channel 0, Reading(channel=0)"
            )

    def values(self, array: ArrayLike, y: int, x: int, height: int, width: int) -> Values:
        """(height, width, channels) of a window."""
        return projected(
            (self._page(array, number, y, x, height, width) for number in self.numbers),
            self.project,
        )

    def _page(
        self, array: ArrayLike, number: int, y: int, x: int, height: int, width: int
    ) -> Values:
        place = dict(zip(self.pages, np.unravel_index(number, self.page_shape), strict=True))
        low, high = min(self.channels), max(self.channels) + 1
        window = {"Y": slice(y, y + height), "X": slice(x, x + width)}
        key: list[int | slice] = []
        for i, axis in enumerate(self.axes):
            if axis in window:
                key.append(window[axis])
            else:
                key.append(slice(low, high) if axis == self.colour else int(place[i]))
        values = np.asarray(array[tuple(key)])
        left = [axis for axis in self.axes if axis in "YX" or axis == self.colour]
        order = [left.index("Y"), left.index("X")]
        if self.colour is None:
            grey: Values = values.transpose(order)[..., None]
            return grey
        values = values.transpose([*order, left.index(self.colour)])
        chosen: Values = values[..., [channel - low for channel in self.channels]]
        return chosen


def check_chunk(name: str, chunk: tuple[int, ...], dtype: np.dtype[np.generic]) -> None:
    """Refuse files that are stored in one piece, which no window could be read of.

    Raises:
        ImageReadError: A piece is larger than `LARGEST_CHUNK`.
    """
    size = math.prod(chunk) * dtype.itemsize
    if size > LARGEST_CHUNK:
        raise ImageReadError(
            f"{name}: is stored in pieces of {'x'.join(map(str, chunk))} ({size / 2**30:.1f} GB), "
            "which cannot be read in windows; save it in tiles (bfconvert, vips tiffsave --tile "
            "--pyramid, or tifffile with tile=(512, 512))"
        )
