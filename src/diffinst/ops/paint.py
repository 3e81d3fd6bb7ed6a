"""Many masks resampled into their windows at once, without a loop over them (for GPUs).

Windows differ in size, so their pixels lie one after another: window by window, row by row.
Resampling is linear and separable: first a window's rows from its map, then pixels from rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from diffinst.ops.masks import AxisTaps
from diffinst.ops.roi_align import weighted_gather

PIXELS = 2**20  # resampled at once: each takes about 100 bytes on the way
Axis: TypeAlias = Callable[[Tensor, Tensor], AxisTaps]
"""From (m,) int64 map numbers and (m,) int64 rows or columns of the image to their taps."""


def paint(
    probs: Float[Tensor, "n h w"],
    windows: Sequence[Sequence[int]],
    rows: Axis,
    columns: Axis,
    threshold: float,
) -> list[Bool[Tensor, "_ _"]]:
    """Where resampled probabilities exceed a threshold, in a window of the image each.

    Args:
        probs: (n, h, w).
        windows: n times (y0, x0, height, width) in pixels.
        rows: Which cells of a map a row of the image blends.
        columns: The same of columns.
        threshold: In [0, 1].

    Returns:
        n (height, width) patches on the CPU.
    """
    pieces: list[list[Tensor]] = [[] for _ in windows]
    for block in _blocks(windows, probs.shape[2]):
        flat = _paint_block(probs, block, rows, columns, threshold).cpu()
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


def _paint_block(
    probs: Tensor, block: Sequence[_Strip], rows: Axis, columns: Axis, threshold: float
) -> Tensor:
    """All pixels of some strips, one strip after the other."""
    count, height, width = probs.shape
    number, top, left, tall, wide = torch.tensor(block, device=probs.device).unbind(1)
    row_total, column_total = sum(s[3] for s in block), sum(s[4] for s in block)
    row_strip, row_place = _laid_out(tall, row_total)
    taps = rows(number[row_strip], top[row_strip] + row_place)
    cells = taps.index + (number[row_strip] * height)[:, None]
    lines = weighted_gather(probs.reshape(count * height, width), cells, taps.weight)

    column_strip, column_place = _laid_out(wide, column_total)
    taps = columns(number[column_strip], left[column_strip] + column_place)
    row, place = _laid_out(wide[row_strip], sum(s[3] * s[4] for s in block))
    column = (wide.cumsum(0) - wide)[row_strip][row] + place
    index = taps.index[column] + (row * width)[:, None]
    return (lines.flatten()[index] * taps.weight[column]).sum(1) > threshold


def _laid_out(
    lengths: Int64[Tensor, "n"], total: int
) -> tuple[Int64[Tensor, "{total}"], Int64[Tensor, "{total}"]]:
    """n stretches end to end: which one, and the place in it; `total` is the sum of lengths."""
    numbers = torch.arange(len(lengths), device=lengths.device)
    which = torch.repeat_interleave(numbers, lengths, output_size=total)
    first = lengths.cumsum(0) - lengths
    return which, torch.arange(total, device=lengths.device) - first[which]
