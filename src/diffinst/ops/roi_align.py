"""RoI features of any boxes over the whole pyramid as one weighted gather (FPN, Eq. 1).

The levels lie below each other in one table; each RoI bin is a weighted sum of its rows. That is
one operation forward and one backward, whatever the number of levels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from diffinst.structures import FIRST_LEVEL, Pyramid

Gather: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`weighted_gather`, or what computes the same faster."""

CANONICAL_SIZE = 224  # FPN paper, Eq. 1: a box of this size ...
CANONICAL_LEVEL = 4  # ... belongs to this level


def assign_levels(boxes: Float[Tensor, "*batch 4"], levels: int = 4) -> Int64[Tensor, "*batch"]:
    """Pyramid level of each box: floor(4 + log2(sqrt(area) / 224)), limited to what there is.

    Args:
        boxes: (..., 4) xyxy pixels.
        levels: Number of pyramid levels from p2 on.

    Returns:
        (...) int64 in [2, 2 + levels).
    """
    size = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1).sqrt()
    level = torch.floor(CANONICAL_LEVEL + torch.log2(size / CANONICAL_SIZE + 1e-8))
    level = level.nan_to_num(nan=FIRST_LEVEL)  # a diverged box must not become a wild index
    return level.clamp(FIRST_LEVEL, FIRST_LEVEL + levels - 1).long()


def pool(
    pyramid: Pyramid,
    boxes: Float[Tensor, "B N 4"],
    size: int,
    sampling: int,
    gather: Gather | None = None,
) -> Float[Tensor, "B N {size*size} _"]:
    """Aligned RoIAlign of each image's boxes from the level that fits them.

    Args:
        pyramid: Of B images.
        boxes: (B, N, 4) xyxy pixels of the network input; gets no gradient.
        size: Bins per side.
        sampling: Bilinear samples per bin and axis.
        gather: What sums the samples; None: `weighted_gather`.

    Returns:
        (B, N, size * size, D), bins row by row.

    Raises:
        ValueError: Boxes of another number of images than the pyramid's.
    """
    index, weight = roi_taps(pyramid, boxes, size, sampling)
    pooled = (gather or weighted_gather)(pyramid_rows(pyramid), index, weight)
    return pooled.view(*boxes.shape[:2], size * size, pyramid.table.shape[-1])


def pyramid_rows(pyramid: Pyramid) -> Float[Tensor, "rows D"]:
    """The table of all images as one, which the taps index; an expanded image is there once."""
    table = pyramid.table
    return table[0] if _is_expanded(pyramid) else table.flatten(0, 1)


def _is_expanded(pyramid: Pyramid) -> bool:
    return len(pyramid.table) > 1 and pyramid.table.stride(0) == 0


def roi_taps(
    pyramid: Pyramid, boxes: Float[Tensor, "B N 4"], size: int, sampling: int
) -> tuple[Int64[Tensor, "bins taps"], Float[Tensor, "bins taps"]]:
    """Rows of `pyramid_rows` and weights of each bin: two (B * N * size^2, 4 * sampling^2) tensors.

    Args:
        pyramid: Of B images.
        boxes: (B, N, 4) xyxy pixels of the network input.
        size: Bins per side.
        sampling: Bilinear samples per bin and axis.

    Raises:
        ValueError: Boxes of another number of images than the pyramid's.
    """
    if len(boxes) != len(pyramid.table):
        raise ValueError(f"boxes of {len(boxes)} images for features of {len(pyramid.table)}")
    boxes = boxes.detach().float()
    batch, count = boxes.shape[:2]
    heights, widths, starts, scales = pyramid.levels
    level = assign_levels(boxes, len(starts)) - FIRST_LEVEL
    scale, width = scales[level], widths[level]
    image = torch.arange(batch, device=boxes.device).view(-1, 1) * pyramid.table.shape[1]
    if _is_expanded(pyramid):
        image = torch.zeros_like(image)
    base = (image + starts[level]).view(batch, count, 1, 1, 1, 1)

    x_index, x_weight = _axis_taps(boxes[..., 0], boxes[..., 2], scale, width, size, sampling)
    y_index, y_weight = _axis_taps(
        boxes[..., 1], boxes[..., 3], scale, heights[level], size, sampling
    )
    # (B, N, bins y, 1, taps y, 1) with (B, N, 1, bins x, 1, taps x)
    y_rows = (y_index * width[..., None, None])[:, :, :, None, :, None]
    index = base + y_rows + x_index[:, :, None, :, None, :]
    weight = y_weight[:, :, :, None, :, None] * x_weight[:, :, None, :, None, :]
    taps = (2 * sampling) ** 2
    return index.reshape(-1, taps), weight.reshape(-1, taps)


def _axis_taps(
    low: Tensor, high: Tensor, scale: Tensor, length: Tensor, size: int, sampling: int
) -> tuple[Tensor, Tensor]:
    """Taps along one axis: cell indices and weights, each (B, N, size, 2 * sampling).

    A sample further than one cell outside the map counts zero, others are clamped to it; the
    divisor stays `sampling`.
    """
    start = low * scale - 0.5
    bin_size = (high * scale - 0.5 - start) / size
    steps = torch.arange(size * sampling, device=low.device, dtype=torch.float32)
    bins, within = steps.div(sampling, rounding_mode="floor"), steps % sampling + 0.5
    # torchvision's order of operations: samples within rounding of the zero border must agree
    start, bin_size = start[..., None], bin_size[..., None]
    position = start + bins * bin_size + within * bin_size / sampling
    last = (length - 1)[..., None]
    inside = (position >= -1.0) & (position <= length[..., None])
    position = torch.where(inside, position, 0.0).clamp(min=0)
    first = torch.minimum(position.long(), last)
    second = torch.minimum(first + 1, last)
    fraction = torch.where(first == last, 0.0, position - first)
    weights = torch.stack([1 - fraction, fraction], dim=-1) * (inside[..., None] / sampling)
    indices = torch.stack([first, second], dim=-1)
    return (
        indices.view(*low.shape, size, 2 * sampling),
        weights.view(*low.shape, size, 2 * sampling),
    )


def weighted_gather(
    table: Float[Tensor, "rows C"],
    index: Int64[Tensor, "bins taps"],
    weight: Float[Tensor, "bins taps"],
) -> Float[Tensor, "bins C"]:
    """sum_k weight[i, k] * table[index[i, k]] for every i.

    Args:
        table: (rows, C).
        index: (bins, taps) int64 rows of the table.
        weight: (bins, taps); cast to the table's dtype.

    Returns:
        (bins, C).
    """
    return F.embedding_bag(index, table, per_sample_weights=weight.to(table.dtype), mode="sum")
