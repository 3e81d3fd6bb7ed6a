"""RoI features on a GPU as one Triton kernel: no tap is ever written to memory.

A program makes one bin of one box: it works out the bin's bilinear samples from the box's corners
and adds up the rows of the table they blend, in float32. The arithmetic is that of
`roi_align._axis_taps`, in its order. Importing this registers the operator `diffinst::pool`, which
compilers of torch take as it is.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit  # type: ignore[untyped-decorator]
def _sample(low, high, scale, length, bin, sample, SIZE: tl.constexpr, SAMPLING: tl.constexpr):  # type: ignore[no-untyped-def]
    """First and second cell of a sample along one axis, the second's weight, and 1 or 0."""
    start = low * scale - 0.5
    bin_size = tl.div_rn(high * scale - 0.5 - start, SIZE * 1.0)
    position = start + bin * bin_size + tl.div_rn((sample + 0.5) * bin_size, SAMPLING * 1.0)
    inside = (position >= -1.0) & (position <= length)
    position = tl.maximum(tl.where(inside, position, 0.0), 0.0)
    first = tl.minimum(position.to(tl.int64), length - 1)
    second = tl.minimum(first + 1, length - 1)
    weight = tl.where(first == second, 0.0, position - first)
    return first, second, weight, tl.where(inside, 1.0, 0.0)


@triton.jit  # type: ignore[untyped-decorator]
def _pool(  # type: ignore[no-untyped-def]
    table,
    boxes,
    level,
    heights,
    widths,
    starts,
    scales,
    pooled,
    rows,
    count,
    channels,
    SIZE: tl.constexpr,
    SAMPLING: tl.constexpr,
    BLOCK: tl.constexpr,
):
    program = tl.program_id(0).to(tl.int64)
    roi, bin = program // (SIZE * SIZE), program % (SIZE * SIZE)
    own = tl.load(level + roi)
    height, width = tl.load(heights + own), tl.load(widths + own)
    scale, start = tl.load(scales + own), tl.load(starts + own)
    x1, y1 = tl.load(boxes + roi * 4), tl.load(boxes + roi * 4 + 1)
    x2, y2 = tl.load(boxes + roi * 4 + 2), tl.load(boxes + roi * 4 + 3)
    channel = tl.arange(0, BLOCK)
    real = channel < channels
    level_rows = table + ((roi // count) * rows + start) * channels + channel
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for i in tl.static_range(SAMPLING):
        top, bottom, down, valid_y = _sample(y1, y2, scale, height, bin // SIZE, i, SIZE, SAMPLING)
        for j in tl.static_range(SAMPLING):
            left, right, across, valid_x = _sample(
                x1, x2, scale, width, bin % SIZE, j, SIZE, SAMPLING
            )
            valid = valid_y * valid_x / (SAMPLING * SAMPLING)
            upper, lower = (
                level_rows + top * width * channels,
                level_rows + bottom * width * channels,
            )
            a = tl.load(upper + left * channels, mask=real, other=0.0).to(tl.float32)
            b = tl.load(upper + right * channels, mask=real, other=0.0).to(tl.float32)
            c = tl.load(lower + left * channels, mask=real, other=0.0).to(tl.float32)
            d = tl.load(lower + right * channels, mask=real, other=0.0).to(tl.float32)
            above, below = a + (b - a) * across, c + (d - c) * across
            total += (above + (below - above) * down) * valid
    tl.store(pooled + program * channels + channel, total.to(pooled.dtype.element_ty), mask=real)


def pool(
    table: Tensor,
    boxes: Tensor,
    level: Tensor,
    heights: Tensor,
    widths: Tensor,
    starts: Tensor,
    scales: Tensor,
    rows: int,
    size: int,
    sampling: int,
) -> Tensor:
    """Aligned RoIAlign from a table of levels; no gradient.

    Args:
        table: (B * rows, C), contiguous.
        boxes: (B, N, 4) float32 xyxy pixels of the network input.
        level: (B, N) int64, 0 first.
        heights: (levels,) int64, as the next three: see `structures.Levels`.
        widths: (levels,).
        starts: (levels,).
        scales: (levels,) float32.
        rows: Of the table for one image.
        size: Bins per side.
        sampling: Bilinear samples per bin and axis.

    Returns:
        (B, N, size * size, C) of the table's dtype.
    """
    channels = table.shape[1]
    pooled = table.new_empty(*boxes.shape[:2], size * size, channels)
    if pooled.numel():
        bins = pooled.shape[0] * pooled.shape[1] * pooled.shape[2]
        with torch.cuda.device_of(table):  # where Triton starts it
            _pool[(bins,)](
                table,
                boxes.contiguous(),
                level.contiguous(),
                heights,
                widths,
                starts,
                scales,
                pooled,
                rows,
                boxes.shape[1],
                channels,
                SIZE=size,
                SAMPLING=sampling,
                BLOCK=triton.next_power_of_2(channels),
                num_warps=1,  # a row of 256 channels in one wide load a thread
                enable_fp_fusion=False,  # samples within rounding of the border are to agree
            )
    return pooled


SCHEMA = (
    "(Tensor table, Tensor boxes, Tensor level, Tensor heights, Tensor widths, Tensor starts, "
    "Tensor scales, SymInt rows, int size, int sampling) -> Tensor"
)
pool_on_gpu = torch.library.custom_op(
    "diffinst::pool", pool, mutates_args=(), device_types="cuda", schema=SCHEMA
)  # compiled networks call it as it is


@pool_on_gpu.register_fake
def _shape(  # type: ignore[no-untyped-def]
    table, boxes, level, heights, widths, starts, scales, rows, size, sampling
) -> Tensor:
    shape: Tensor = table.new_empty(*boxes.shape[:2], size * size, table.shape[1])
    return shape
