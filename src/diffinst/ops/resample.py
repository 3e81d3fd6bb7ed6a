"""Mask maps to windows of the original image: linear, separable resampling and a threshold.

A window of the output is R @ prob @ C^T with two narrow matrices; only the window is ever computed,
never n full-size masks. The windows of n masks are made one by one, or together: as one array, one
window behind the other, each row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from diffinst.ops.masks import MASK_STRIDE
from diffinst.ops.roi_align import weighted_gather


@dataclass(frozen=True)
class AxisTaps:
    """A linear operator along one axis as a few cells and weights per output pixel.

    Attributes:
        index: (n, k) int64 cells; a row's first is its lowest, its last its highest, and both
            ascend from row to row.
        weight: (n, k) float32, zero where a cell is not needed.
    """

    index: Tensor
    weight: Tensor

    def __getitem__(self, pixels: Tensor) -> AxisTaps:
        """Of some output pixels, an index tensor."""
        return AxisTaps(self.index[pixels], self.weight[pixels])

    def support(self) -> tuple[int, int]:
        """First and one past the last cell that the pixels, at least one, read."""
        return int(self.index[0, 0]), int(self.index[-1, -1]) + 1

    def matrix(self, start: int, stop: int, cells: tuple[int, int]) -> Tensor:
        """(stop - start, cells) weights of a range of cells that holds the pixels' support."""
        first, last = cells
        dense = self.weight.new_zeros(stop - start, last - first)
        return dense.scatter_add_(1, self.index[start:stop] - first, self.weight[start:stop])


def grid_to_output(
    pixel: Int64[Tensor, "p"],
    low: Float32[Tensor, "#p"],
    high: Float32[Tensor, "#p"],
    size: int,
) -> AxisTaps:
    """From a grid's axis over [low, high] to pixels of the output, two cells a pixel.

    Args:
        pixel: (p,) rows or columns of the output.
        low: (p,), or (1,) for all of them, in pixels of the output.
        high: As `low`.
        size: Cells of the grid.

    Returns:
        Taps that are weightless where a pixel's centre lies outside.
    """
    centre = pixel + 0.5
    position = (centre - low) / ((high - low).clamp(min=1e-6) / size) - 0.5
    position = position.clamp(0, size - 1)
    first = position.floor()
    fraction = position - first
    covered = (centre > low) & (centre < high)
    weight = torch.stack([1 - fraction, fraction], 1) * covered[:, None]
    index = torch.stack([first, (first + 1).clamp(max=size - 1)], 1).long()
    return AxisTaps(index, weight)


def map_to_output(
    cells: int, inside: int, output: int, device: torch.device | None = None
) -> AxisTaps:
    """From a stride-4 map's axis to the output image's, four cells a pixel.

    It is `aligned_bilinear` by 4, cut to the unpadded input, and bilinear resizing with corners not
    aligned, as one linear operator.

    Args:
        cells: Length of the stride-4 axis (padded input / 4).
        inside: Length of the unpadded input.
        output: Length of the output image.
        device: Where the result lies.
    """
    half = MASK_STRIDE // 2
    positions = (torch.arange(output, dtype=torch.float32, device=device) + 0.5) * (
        inside / output
    ) - 0.5
    positions = positions.clamp(0, inside - 1)
    low = positions.floor()
    upper = positions - low
    indices, weights = [], []
    for pixel, part in ((low, 1 - upper), ((low + 1).clamp(max=inside - 1), upper)):
        cell = ((pixel - half) / MASK_STRIDE).clamp(0, cells - 1)
        first = cell.floor()
        fraction = cell - first
        indices += [first, (first + 1).clamp(max=cells - 1)]
        weights += [part * (1 - fraction), part * fraction]
    return AxisTaps(torch.stack(indices, 1).long(), torch.stack(weights, 1))


COLUMNS = 4096
"""Columns of a window that are float at once."""


def threshold_window(
    probs: Float[Tensor, "h w"],
    rows: Float[Tensor, "height h"],
    columns: AxisTaps,
    cells: tuple[int, int],
    threshold: float,
) -> Bool[Tensor, "height _"]:
    """Where one map resampled to a window exceeds a threshold.

    Args:
        probs: (h, w) on the CPU.
        rows: (height, h), from cells of the map to rows of the window.
        columns: Taps of the window's columns.
        cells: First and one past the last column of cells that `probs` holds.
        threshold: In [0, 1].
    """
    width = len(columns.index)
    patch = torch.empty(len(rows), width, dtype=torch.bool)
    lines = rows @ probs
    for start in range(0, width, COLUMNS):
        stop = min(start + COLUMNS, width)
        patch[:, start:stop] = lines @ columns.matrix(start, stop, cells).T > threshold
    return patch


PIXELS = 2**20  # resampled at once: each takes about 100 bytes on the way
Axis: TypeAlias = Callable[[Tensor, Tensor], AxisTaps]
"""From (m,) int64 map numbers and (m,) int64 rows or columns of the image to their taps."""


def threshold_together(
    probs: Float[Tensor, "n h w"],
    windows: Sequence[Sequence[int]],
    rows: Axis,
    columns: Axis,
    threshold: float,
) -> list[Bool[Tensor, "_ _"]]:
    """Where maps resampled to windows exceed a threshold, many windows at a time.

    For devices that would wait between one window and the next; on a CPU it takes ten times as long
    as `threshold_window` for each.

    Args:
        probs: (n, h, w) in [0, 1].
        windows: n times (y0, x0, height, width) in pixels.
        rows: Which cells of a map a row of the image blends.
        columns: The same of columns.
        threshold: In [0, 1].

    Returns:
        n (height, width) patches on the CPU.
    """
    pieces: list[list[Tensor]] = [[] for _ in windows]
    for block in _blocks(windows, probs.shape[2]):
        flat = _block(probs, block, rows, columns, threshold).cpu()
        parts = torch.split(flat, [h * w for _, _, _, h, w in block])
        for (i, _, _, h, w), part in zip(block, parts, strict=True):
            pieces[i].append(part.view(h, w).clone())  # not a view: one may outlive the rest
    return [piece[0] if len(piece) == 1 else torch.cat(piece) for piece in pieces]


_Strip: TypeAlias = tuple[int, int, int, int, int]  # map, y0, x0, height, width


def _blocks(windows: Sequence[Sequence[int]], cells: int) -> Iterator[list[_Strip]]:
    """Windows, the large ones in strips of rows, in groups of about `PIXELS` pixels.

    Rows are resampled at the width of their map first, `cells`, so they count as at least as wide.
    """
    block: list[_Strip] = []
    pixels = 0
    for i, (y0, x0, height, width) in enumerate(windows):
        across = max(width, cells, 1)
        step = max(1, PIXELS // across)
        for y in range(0, max(height, 1), step):
            block.append((i, y0 + y, x0, min(step, height - y), width))
            pixels += block[-1][3] * across
            if pixels >= PIXELS:
                yield block
                block, pixels = [], 0
    if block:
        yield block


def _block(
    probs: Tensor, block: Sequence[_Strip], rows: Axis, columns: Axis, threshold: float
) -> Tensor:
    """All pixels of some strips, one strip after the other."""
    count, height, width = probs.shape
    number, top, left, tall, wide = torch.tensor(block, device=probs.device).unbind(1)
    row_total, column_total = sum(s[3] for s in block), sum(s[4] for s in block)
    row_strip, row_place = laid_out(tall, row_total)
    taps = rows(number[row_strip], top[row_strip] + row_place)
    cells = taps.index + (number[row_strip] * height)[:, None]
    lines = weighted_gather(probs.reshape(count * height, width), cells, taps.weight)

    column_strip, column_place = laid_out(wide, column_total)
    taps = columns(number[column_strip], left[column_strip] + column_place)
    row, place = laid_out(wide[row_strip], sum(s[3] * s[4] for s in block))
    column = (wide.cumsum(0) - wide)[row_strip][row] + place
    index = taps.index[column] + (row * width)[:, None]
    return (lines.flatten()[index] * taps.weight[column]).sum(1) > threshold


def laid_out(
    lengths: Int64[Tensor, "n"], total: int
) -> tuple[Int64[Tensor, "{total}"], Int64[Tensor, "{total}"]]:
    """n stretches end to end: which one, and the place in it; `total` is the sum of lengths."""
    numbers = torch.arange(len(lengths), device=lengths.device)
    which = torch.repeat_interleave(numbers, lengths, output_size=total)
    first = lengths.cumsum(0) - lengths
    return which, torch.arange(total, device=lengths.device) - first[which]
