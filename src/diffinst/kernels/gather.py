"""The weighted gather whose backward pass gathers, too, instead of scattering; samples by it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from diffinst import kernels
from diffinst.ops import roi_align
from diffinst.ops.masks import bilinear_taps


def weighted_gather(
    table: Float[Tensor, "rows C"],
    index: Int64[Tensor, "bins taps"],
    weight: Float[Tensor, "bins taps"],
) -> Float[Tensor, "bins C"]:
    """`ops.roi_align.weighted_gather`; gradient to the table only.

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
    if not kernels.enabled():
        return roi_align.weighted_gather(table, index, weight)
    result: Tensor = _WeightedGather.apply(table, index, weight)
    return result


def sample_at(
    maps: Float[Tensor, "B C h w"], points: Float[Tensor, "n p 2"], image: Int64[Tensor, "n"]
) -> Float[Tensor, "n C p"]:
    """Bilinear samples of stride-4 maps at pixels of the network input, border replicated.

    Args:
        maps: (B, C, H/4, W/4).
        points: (n, p, 2) x, y pixels of the network input.
        image: (n,) int64, which of the B maps each row of points looks at.

    Returns:
        (n, C, p).
    """
    channels, height, width = maps.shape[1:]
    index, weight = bilinear_taps((height, width), points, image)
    table = maps.permute(0, 2, 3, 1).reshape(-1, channels)
    rows = weighted_gather(table, index, weight)
    return rows.view(*points.shape[:2], channels).transpose(1, 2)


if TYPE_CHECKING:

    class _Context(Protocol):
        """What autograd hands from forward to backward."""

        saved_tensors: tuple[Tensor, ...]
        rows: int

        def save_for_backward(self, *tensors: Tensor) -> None: ...

else:  # autograd's ctx has its attributes only later, so nothing can be checked before
    _Context = object


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
