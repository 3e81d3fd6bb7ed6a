"""Mask geometry: aligned upsampling, target sampling, points of maps and of grids inside boxes."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor
from torch.nn import functional as F

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
    x = F.pad(x, (1, 1, 1, 1), mode="replicate")
    size = (factor * (height + 1) + 1, factor * (width + 1) + 1)
    x = F.interpolate(x, size=size, mode="bilinear", align_corners=True)
    first = factor - factor // 2  # the cell in front starts at 0
    return x[..., first : first + factor * height, first : first + factor * width]


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


def bilinear_taps(
    size: tuple[int, int], points: Float[Tensor, "n p 2"], image: Int64[Tensor, "n"]
) -> tuple[Int64[Tensor, "n*p 4"], Float32[Tensor, "n*p 4"]]:
    """Which cells of stride-4 maps a point blends, and with which weights; border replicated.

    Args:
        size: (h, w) of the maps.
        points: (n, p, 2) x, y pixels of the network input.
        image: (n,) int64, which of the maps each row of points looks at.

    Returns:
        Cells, counted row by row and map by map, and weights: two (n * p, 4).
    """
    height, width = size
    half = MASK_STRIDE // 2
    cell = (points.float() - half) / MASK_STRIDE
    x, y = cell[..., 0].clamp(0, width - 1), cell[..., 1].clamp(0, height - 1)
    left, top = x.floor(), y.floor()
    fx, fy = x - left, y - top
    x0, y0 = left.long(), top.long()
    x1, y1 = (x0 + 1).clamp(max=width - 1), (y0 + 1).clamp(max=height - 1)
    index = torch.stack([y0 * width + x0, y0 * width + x1, y1 * width + x0, y1 * width + x1], -1)
    index = index + (image * (height * width))[:, None, None]
    weight = torch.stack([(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx], -1)
    return index.flatten(0, 1), weight.flatten(0, 1)


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


def expected_iou(probs: Float[Tensor, "n p"], threshold: float = 0.5) -> Float[Tensor, "n"]:
    """What IoU masks have with the truth, if their probabilities are right.

    With m the pixels above the threshold, the expected intersection is the sum of p over m, and the
    expected union is |m| plus the sum of p outside m; their ratio is 1 for masks of zeros and ones.

    Args:
        probs: (n, p) probabilities at p points spread evenly over each box.
        threshold: From which on a point belongs to the mask.

    Returns:
        (n,) in [0, 1]; 0 where no point is above the threshold.

    Example:
        >>> expected_iou(torch.tensor([[1.0, 1.0, 0.0], [0.75, 0.25, 0.0]])).tolist()
        [1.0, 0.6000000238418579]
    """
    inside = (probs > threshold).to(probs)
    union = inside.sum(1) + (probs * (1 - inside)).sum(1)
    return (probs * inside).sum(1) / union.clamp(min=torch.finfo(probs.dtype).tiny)
