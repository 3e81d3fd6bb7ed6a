"""Mask geometry: aligned upsampling, target sampling, grids inside boxes, separable resampling.

Resampling is linear and separable, so a mask window in the output is R @ prob @ C^T with two narrow
matrices; only the window is ever computed, never N full-size masks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor
from torch.nn import functional as F

from diffinst.ops.roi_align import weighted_gather

MASK_STRIDE = 4


def aligned_bilinear(
    x: Float[Tensor, "B C H W"], factor: int
) -> Float[Tensor, "B C {factor}*H {factor}*W"]:
    """Upsample so that cell i of the input lies at output pixel factor * i + factor // 2.

    Args:
        x: (B, C, H, W).
        factor: Whole number >= 1.

    Returns:
        (B, C, factor * H, factor * W); borders are replicated.
    """
    if factor == 1:
        return x
    height, width = x.shape[-2:]
    x = F.pad(x, (0, 1, 0, 1), mode="replicate")
    size = (factor * height + 1, factor * width + 1)
    x = F.interpolate(x, size=size, mode="bilinear", align_corners=True)
    x = F.pad(x, (factor // 2, 0, factor // 2, 0), mode="replicate")
    return x[..., : factor * height, : factor * width]


def sample_targets(
    masks: Bool[Tensor, "n h w"], padded: tuple[int, int]
) -> Float32[Tensor, "n {padded[0]//4} {padded[1]//4}"]:
    """Full-size target masks at the points of F_mask: zero-padded, then every 4th pixel from 2.

    Args:
        masks: (n, h, w) bool.
        padded: (H, W) of the network input, multiples of 4.

    Returns:
        (n, H/4, W/4) float32.
    """
    height, width = masks.shape[-2:]
    masks = F.pad(masks, (0, padded[1] - width, 0, padded[0] - height))
    half = MASK_STRIDE // 2
    return masks[:, half::MASK_STRIDE, half::MASK_STRIDE].float()


def map_points(
    size: tuple[int, int], device: torch.device
) -> Float32[Tensor, "{size[0]*size[1]} 2"]:
    """(h * w, 2) x, y pixels of the network input where the cells of a stride-4 map lie."""
    half = MASK_STRIDE // 2
    ys = torch.arange(size[0], device=device, dtype=torch.float32) * MASK_STRIDE + half
    xs = torch.arange(size[1], device=device, dtype=torch.float32) * MASK_STRIDE + half
    y, x = torch.meshgrid(ys, xs, indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1)


def enlarge(boxes: Float[Tensor, "n 4"], margin: float) -> Float[Tensor, "n 4"]:
    """(n, 4) xyxy boxes grown by `margin` of their size about their centres."""
    grow = (boxes[:, 2:] - boxes[:, :2]) * (margin / 2)
    return torch.cat([boxes[:, :2] - grow, boxes[:, 2:] + grow], dim=-1)


def grid_points(boxes: Float[Tensor, "n 4"], size: int) -> Float[Tensor, "n {size*size} 2"]:
    """Centres of a size x size grid in each box: (n, size * size, 2) x, y, row by row."""
    ticks = (torch.arange(size, device=boxes.device, dtype=torch.float32) + 0.5) / size
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    unit = torch.stack([x, y], dim=-1).flatten(0, 1)
    return boxes[:, None, :2] + unit * (boxes[:, None, 2:] - boxes[:, None, :2])


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
    height, width = maps.shape[-2:]
    half = MASK_STRIDE // 2
    cell = (points.float() - half) / MASK_STRIDE
    limit = cell.new_tensor([width - 1, height - 1])
    cell = torch.minimum(cell.clamp(min=0), limit)
    low = cell.floor()
    fraction = (cell - low).to(maps.dtype)
    x0, y0 = low.long().unbind(-1)
    x1 = (x0 + 1).clamp(max=width - 1)
    y1 = (y0 + 1).clamp(max=height - 1)
    table = maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])
    base = image[:, None] * (height * width)
    fx, fy = fraction.unbind(-1)
    index = torch.stack([y0 * width + x0, y0 * width + x1, y1 * width + x0, y1 * width + x1], -1)
    weight = torch.stack([(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx], -1)
    rows = weighted_gather(table, (index + base[..., None]).flatten(0, 1), weight.flatten(0, 1))
    return rows.view(*points.shape[:2], maps.shape[1]).transpose(1, 2)


def sample_binary(
    masks: Bool[Tensor, "n h w"], points: Float[Tensor, "n p 2"]
) -> Float32[Tensor, "n p"]:
    """Whether full-size masks cover points: (n, h, w) bool at (n, p, 2) x, y pixels, 0 outside.

    Returns:
        (n, p) float32.
    """
    height, width = masks.shape[-2:]
    x, y = points.floor().long().unbind(-1)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    flat = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    return (masks.flatten(1).gather(1, flat) & inside).float()


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

    def support(self, start: int, stop: int) -> tuple[int, int]:
        """First and one past the last cell that output pixels start..stop-1 read."""
        return int(self.index[start, 0]), int(self.index[stop - 1, -1]) + 1

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
    share = position - first
    covered = (centre > low) & (centre < high)
    weight = torch.stack([1 - share, share], 1) * covered[:, None]
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
    share = positions - low
    indices, weights = [], []
    for pixel, part in ((low, 1 - share), ((low + 1).clamp(max=inside - 1), share)):
        cell = ((pixel - half) / MASK_STRIDE).clamp(0, cells - 1)
        first = cell.floor()
        fraction = cell - first
        indices += [first, (first + 1).clamp(max=cells - 1)]
        weights += [part * (1 - fraction), part * fraction]
    return AxisTaps(torch.stack(indices, 1).long(), torch.stack(weights, 1))
