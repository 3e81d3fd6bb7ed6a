"""RoI features of any boxes over the whole pyramid as one weighted gather (FPN, Eq. 1).

The levels lie below each other in one channels-last table; each RoI bin is a weighted sum of its
rows. That is one kernel forward and one backward, whatever the number of levels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeAlias, no_type_check

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

CANONICAL_SIZE = 224  # FPN paper, Eq. 1: a box of this size ...
CANONICAL_LEVEL = 4  # ... belongs to this level
FIRST_LEVEL = 2
RoIKernel: TypeAlias = Callable[..., Tensor]
"""`roi_kernel.pool` on a device that has it."""


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


class Levels(NamedTuple):
    """Where the levels of a pyramid lie in an image's part of the table; one entry a level.

    Attributes:
        heights: (levels,) int64 rows of cells.
        widths: (levels,) int64 columns of cells.
        starts: (levels,) int64 first row in the table.
        scales: (levels,) float32 cells a pixel of the network input.
    """

    heights: Tensor
    widths: Tensor
    starts: Tensor
    scales: Tensor

    @classmethod
    def of(cls, shapes: Sequence[tuple[int, int]], device: torch.device) -> Levels:
        """Of (height, width) by level, strides 4, 8, ..."""
        areas = [h * w for h, w in shapes]
        starts = [sum(areas[:i]) for i in range(len(areas))]
        scales = [0.5 ** (FIRST_LEVEL + i) for i in range(len(areas))]
        rows = ([h for h, _ in shapes], [w for _, w in shapes], starts, scales)
        return cls(*(_filled(row, device) for row in rows))


def _filled(values: Sequence[float], device: torch.device) -> Tensor:
    """Numbers written by the device itself: a copy from the host would make the host wait."""
    return torch.stack([torch.full((), value, device=device) for value in values])


class FeatureTable:
    """The pyramid as one (B * rows, C) table, built once per image and used by every stage.

    Args:
        pyramid: p2..., each (B, C, H/s, W/s), strides 4, 8, ...
        kernel: Pools where no gradient is asked for; None: the weighted gather does.
    """

    def __init__(
        self, pyramid: Sequence[Float[Tensor, "B C _ _"]], kernel: RoIKernel | None = None
    ) -> None:
        self.kernel = kernel
        shapes = [(int(p.shape[-2]), int(p.shape[-1])) for p in pyramid]
        self.batch = int(pyramid[0].shape[0])
        rows = [p.flatten(2).transpose(1, 2) for p in pyramid]  # (B, H*W, C) each
        self.table = torch.cat(rows, dim=1).flatten(0, 1).contiguous()
        self.levels = Levels.of(shapes, self.table.device)
        self.rows = sum(h * w for h, w in shapes)

    def pool(
        self, boxes: Float[Tensor, "B N 4"], size: int, sampling: int
    ) -> Float[Tensor, "B N {size*size} C"]:
        """Aligned RoIAlign of each image's boxes from the level that fits them.

        Args:
            boxes: (B, N, 4) xyxy pixels of the network input; gets no gradient.
            size: Bins per side.
            sampling: Bilinear samples per bin and axis.

        Returns:
            (B, N, size * size, C), bins row by row.

        Raises:
            ValueError: Boxes of another number of images than the pyramid's.
        """
        if boxes.shape[0] != self.batch:
            raise ValueError(f"boxes of {boxes.shape[0]} images for features of {self.batch}")
        boxes = boxes.detach().float()
        if self.kernel is not None and not self.table.requires_grad:
            level = assign_levels(boxes, len(self.levels.starts)) - FIRST_LEVEL
            return self.kernel(self.table, boxes, level, *self.levels, self.rows, size, sampling)
        index, weight = self._taps(boxes, size, sampling)
        batch, count = boxes.shape[:2]
        pooled = weighted_gather(self.table, index, weight)
        return pooled.view(batch, count, size * size, self.table.shape[1])

    def _taps(self, boxes: Tensor, size: int, sampling: int) -> tuple[Tensor, Tensor]:
        """Rows and weights of each bin: two (B * N * size^2, 4 * sampling^2) tensors."""
        batch, count = boxes.shape[:2]
        heights, widths, starts, scales = self.levels
        level = assign_levels(boxes, len(starts)) - FIRST_LEVEL
        scale, width = scales[level], widths[level]
        image = torch.arange(batch, device=boxes.device).view(-1, 1) * self.rows
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
    """sum_k weight[i, k] * table[index[i, k]] for every i; gradient to the table only.

    Args:
        table: (rows, C).
        index: (bins, taps) int64 rows of the table.
        weight: (bins, taps); cast to the table's dtype.

    Returns:
        (bins, C).
    """
    weight = weight.to(table.dtype)
    if torch.compiler.is_exporting():  # other runtimes know no bags, or run them in loops
        summed = table[index[:, 0]] * weight[:, :1]
        for i in range(1, index.shape[1]):
            summed = summed + table[index[:, i]] * weight[:, i, None]
        return summed
    result: Tensor = _WeightedGather.apply(table, index, weight)
    return result


class _Context(Protocol):
    """What autograd hands from forward to backward."""

    saved_tensors: tuple[Tensor, ...]
    rows: int

    def save_for_backward(self, *tensors: Tensor) -> None: ...


@no_type_check  # at run time, that is: autograd's ctx has its attributes only later
class _WeightedGather(torch.autograd.Function):
    """`embedding_bag` both ways: backward sorts the taps by row once and gathers the gradient."""

    @staticmethod
    def forward(ctx: _Context, table: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(index, weight)
        ctx.rows = table.shape[0]
        return F.embedding_bag(index, table, per_sample_weights=weight, mode="sum")

    @staticmethod
    def backward(ctx: _Context, *gradients: Tensor) -> tuple[Tensor | None, None, None]:
        index, weight = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        flat = index.flatten()
        ordered, order = flat.sort()
        edges = torch.arange(ctx.rows + 1, device=flat.device)
        offsets = torch.searchsorted(ordered, edges)
        summed = F.embedding_bag(
            order // index.shape[1],
            gradient,
            offsets,
            per_sample_weights=weight.flatten()[order],
            mode="sum",
            include_last_offset=True,
        )
        return summed, None, None
