"""Geometry and colour of training images: drawn once, applied to pixels, boxes and masks.

Masks follow by index: every step maps rows to rows and columns to columns, so the whole chain is
    one row index and one column index, and a mask is made at its final size only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from diffinst.config import AugmentConfig
from diffinst.ops.images import fit_size


@dataclass(frozen=True)
class Flip:
    """Mirror along the width (axis -1) or the height (axis -2)."""

    axis: int

    def pixels(self, x: Tensor) -> Tensor:
        """(..., h, w) to the same size."""
        return x.flip(self.axis)

    def axes(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Row and column indices after the step."""
        return (rows, columns.flip(0)) if self.axis == -1 else (rows.flip(0), columns)

    def boxes(self, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """(n, 4) xyxy boxes of an image of `size` (height, width)."""
        i = 0 if self.axis == -1 else 1
        length = size[1] if self.axis == -1 else size[0]
        flipped = boxes.clone()
        flipped[:, i], flipped[:, i + 2] = length - boxes[:, i + 2], length - boxes[:, i]
        return flipped

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Size afterwards."""
        return size


@dataclass(frozen=True)
class Transpose:
    """Swap rows and columns."""

    def pixels(self, x: Tensor) -> Tensor:
        """(..., h, w) to (..., w, h)."""
        return x.transpose(-1, -2)

    def axes(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Rows become columns."""
        return columns, rows

    def boxes(self, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """(n, 4) xyxy boxes with x and y swapped."""
        return boxes[:, [1, 0, 3, 2]]

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Size afterwards."""
        return size[1], size[0]


@dataclass(frozen=True)
class Resize:
    """To a size (height, width); pixels antialiased bilinear, masks nearest."""

    to: tuple[int, int]

    def pixels(self, x: Tensor) -> Tensor:
        """(3, h, w) uint8 to (3, H, W) uint8."""
        resized: Tensor = tv.resize_image(x, list(self.to), antialias=True)
        return resized

    def axes(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Of each new pixel, the old one that covers its centre."""
        picked = []
        for axis, length in zip((rows, columns), self.to, strict=True):
            centres = (torch.arange(length) + 0.5) * (len(axis) / length)
            picked.append(axis[centres.long().clamp(max=len(axis) - 1)])
        return picked[0], picked[1]

    def boxes(self, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """(n, 4) xyxy boxes scaled."""
        x, y = self.to[1] / size[1], self.to[0] / size[0]
        return boxes * boxes.new_tensor([x, y, x, y])

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Size afterwards."""
        return self.to


@dataclass(frozen=True)
class Crop:
    """A window of an image; boxes are clipped to it, not recomputed from masks."""

    top: int
    left: int
    height: int
    width: int

    def pixels(self, x: Tensor) -> Tensor:
        """(..., h, w) to (..., height, width)."""
        return x[..., self.top : self.top + self.height, self.left : self.left + self.width]

    def axes(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """The indices inside the window."""
        return (
            rows[self.top : self.top + self.height],
            columns[self.left : self.left + self.width],
        )

    def boxes(self, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """(n, 4) xyxy boxes in the window, clipped; some end up empty."""
        moved = boxes - boxes.new_tensor([self.left, self.top, self.left, self.top])
        limit = boxes.new_tensor([self.width, self.height, self.width, self.height])
        return torch.minimum(moved.clamp(min=0), limit)

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Size afterwards."""
        return self.height, self.width


Step = Flip | Transpose | Resize | Crop


@dataclass(frozen=True)
class MaskMap:
    """Where the pixels of a transformed mask come from.

    Attributes:
        rows, columns: Indices into the original's axes; into each other's where `transposed`.
        transposed: Whether the original is read column by column.
    """

    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    transposed: bool

    @classmethod
    def of(cls, size: tuple[int, int], steps: Sequence[Step]) -> MaskMap:
        """The chain of steps for an image of `size` (height, width)."""
        rows, columns = torch.arange(size[0]), torch.arange(size[1])
        transposed = False
        for step in steps:
            rows, columns = step.axes(rows, columns)
            transposed ^= isinstance(step, Transpose)
        return cls(rows.numpy(), columns.numpy(), transposed)

    def __call__(self, mask: npt.NDArray[np.bool_]) -> Tensor | None:
        """(h, w) to the final (H, W), reading only where it is; None if it is gone."""
        source = mask.T if self.transposed else mask
        rows = _hits(np.any(source, axis=1), self.rows)
        columns = _hits(np.any(source, axis=0), self.columns)
        if rows is None or columns is None:
            return None
        window = source[np.ix_(self.rows[rows], self.columns[columns])]
        if not window.any():  # cut off, though its rows and its columns are not
            return None
        final = torch.zeros(len(self.rows), len(self.columns), dtype=torch.bool)
        final[rows, columns] = torch.from_numpy(window)
        return final


def _hits(occupied: npt.ArrayLike, index: npt.NDArray[np.int64]) -> slice | None:
    """The stretch of `index` that reads occupied lines."""
    found = np.flatnonzero(np.asarray(occupied)[index])
    return slice(int(found[0]), int(found[-1]) + 1) if len(found) else None


def draw_steps(
    size: tuple[int, int], config: AugmentConfig, rng: np.random.Generator
) -> list[Step]:
    """Random geometry for an image: flips, then perhaps resize and crop, then resize (paper, 4.1).

    Args:
        size: (height, width).
        config: Probabilities and sizes.
        rng: The randomness.
    """
    steps: list[Step] = []

    def add(step: Step) -> None:
        nonlocal size
        size = step.size(size)
        steps.append(step)

    if rng.random() < config.flip:
        add(Flip(-1))
    if rng.random() < config.vertical_flip:
        add(Flip(-2))
    if rng.random() < config.transpose:
        add(Transpose())
    low, high = config.zoom
    if (low, high) != (1.0, 1.0):
        zoom = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        add(Resize(fit_size(size, short_side=None, zoom=zoom, long_side=10**6)))
    if rng.random() < config.crop_probability:
        if config.crop_short_sides:
            add(Resize(_short(size, config.crop_short_sides, rng, 10**6)))
        add(_draw_crop(size, config.crop_range, rng))
    if config.short_sides:
        add(Resize(_short(size, config.short_sides, rng, config.long_side)))
    return steps


def _short(
    size: tuple[int, int], sides: Sequence[int], rng: np.random.Generator, long_side: int
) -> tuple[int, int]:
    side = int(sides[int(rng.integers(len(sides)))])
    return fit_size(size, short_side=side, zoom=1.0, long_side=long_side)


def _draw_crop(size: tuple[int, int], limits: tuple[int, int], rng: np.random.Generator) -> Crop:
    low, high = limits
    height = min(size[0], int(rng.integers(low, high + 1)))
    width = min(size[1], int(rng.integers(low, high + 1)))
    top = int(rng.integers(size[0] - height + 1))
    left = int(rng.integers(size[1] - width + 1))
    return Crop(top, left, height, width)


def jitter_colour(pixels: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    """Brightness, contrast, saturation factors in 1 +- strength; (3, h, w) uint8."""
    if strength == 0:
        return pixels
    brightness, contrast, saturation = rng.uniform(1 - strength, 1 + strength, 3)
    pixels = tv.adjust_brightness_image(pixels, float(brightness))
    pixels = tv.adjust_contrast_image(pixels, float(contrast))
    pixels = tv.adjust_saturation_image(pixels, float(saturation))
    return pixels
