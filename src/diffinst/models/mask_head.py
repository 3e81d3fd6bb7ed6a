"""The mask head: instance-aware filters run over F_mask, wherever a mask is wanted (Eq. 3).

It has no weights of its own; theta comes from the decoder, one filter per proposal.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from diffinst.config import FilterConfig
from diffinst.kernels.gather import sample_at
from diffinst.ops.filters import FilterLayout, apply_filters, relative_coordinates
from diffinst.ops.masks import enlarge, expected_iou, grid_points, map_points

QUALITY_GRID = 14  # points a side; 28 rank masks no better (docs/diary.md)


class MaskHead:
    """Runs filters over mask features.

    Args:
        config: Layers of the filters, whether they see coordinates, where they are evaluated.
        channels: c, channels of F_mask.

    Attributes:
        layout: How d numbers become layers.
    """

    def __init__(self, config: FilterConfig, channels: int) -> None:
        self.config = config
        inputs = channels + (2 if config.coordinates else 0)
        self.layout = FilterLayout(inputs, config.channels, config.layers)

    def logits(
        self,
        features: Float[Tensor, "c p"] | Float[Tensor, "n c p"],
        points: Float[Tensor, "p 2"] | Float[Tensor, "n p 2"],
        filters: Float[Tensor, "n d"],
        boxes: Float[Tensor, "n 4"],
    ) -> Float[Tensor, "n p"]:
        """Each filter at its points: what all other methods come down to.

        Args:
            features: (c, p) F_mask at points that all filters share, or (n, c, p) at each one's.
            points: x, y pixels of the network input where these lie, (p, 2) or (n, p, 2).
            filters: (n, d) theta.
            boxes: (n, 4) xyxy pixels of the network input; used where filters see coordinates.
        """
        if self.config.coordinates:
            seen = relative_coordinates(points, boxes).transpose(1, 2).to(features)
            features = torch.cat([seen, features.expand(len(seen), -1, -1)], dim=1)
        return apply_filters(features, filters, self.layout)

    def on_map(
        self,
        mask_features: Float[Tensor, "B c h w"],
        filters: Float[Tensor, "n d"],
        boxes: Float[Tensor, "n 4"],
        image: Int64[Tensor, "n"],
    ) -> Float[Tensor, "n h w"]:
        """Mask logits on all of F_mask, as in the paper.

        Args:
            mask_features: (B, c, H/4, W/4).
            filters: (n, d).
            boxes: (n, 4) xyxy pixels of the network input.
            image: (n,) int64 index into the batch, ascending.
        """
        size = (int(mask_features.shape[-2]), int(mask_features.shape[-1]))
        points = map_points(size, mask_features.device)
        parts = []
        for i, features in enumerate(mask_features.flatten(2)):
            mine = image == i
            parts.append(self.logits(features, points, filters[mine], boxes[mine]))
        return torch.cat(parts).view(-1, *size)

    def on_grid(
        self,
        mask_features: Float[Tensor, "B c h w"],
        filters: Float[Tensor, "n d"],
        boxes: Float[Tensor, "n 4"],
        image: Int64[Tensor, "n"],
        size: int,
    ) -> Float[Tensor, "n {size*size}"]:
        """Mask logits on a size x size grid over each box, enlarged by `grid_margin`, row by row.

        Args:
            mask_features: (B, c, H/4, W/4).
            filters: (n, d).
            boxes: (n, 4) xyxy pixels of the network input.
            image: (n,) int64 index into the batch.
            size: Points per side.
        """
        points = grid_points(enlarge(boxes, self.config.grid_margin), size)
        return self.at_points(mask_features, filters, boxes, image, points)

    def expected_iou(
        self,
        mask_features: Float[Tensor, "B c h w"],
        filters: Float[Tensor, "n d"],
        boxes: Float[Tensor, "n 4"],
        image: Int64[Tensor, "n"],
        sizes: Sequence[tuple[int, int]],
        threshold: float = 0.5,
    ) -> Float[Tensor, "n"]:
        """How good each mask is by its own probabilities, (n,) in [0, 1]; see `ops.masks`.

        Points lie where the mask may: in the box, enlarged by `grid_margin` where filters are
        evaluated on a grid, and inside the image.

        Args:
            mask_features: (B, c, H/4, W/4).
            filters: (n, d).
            boxes: (n, 4) xyxy pixels of the network input.
            image: (n,) int64 index into the batch.
            sizes: (height, width) of each image in the network input, without padding.
            threshold: Probability from which on a pixel belongs to a mask.
        """
        margin = self.config.grid_margin if self.config.evaluate == "grid" else 0.0
        high, wide = (boxes.new_tensor([size[axis] for size in sizes])[image] for axis in (0, 1))
        limit = torch.stack([wide, high, wide, high], 1)
        window = torch.minimum(enlarge(boxes, margin).clamp(min=0), limit)
        points = grid_points(window, QUALITY_GRID)
        logits = self.at_points(mask_features, filters, boxes, image, points)
        return expected_iou(logits.float().sigmoid(), threshold)

    def at_points(
        self,
        mask_features: Float[Tensor, "B c h w"],
        filters: Float[Tensor, "n d"],
        boxes: Float[Tensor, "n 4"],
        image: Int64[Tensor, "n"],
        points: Float[Tensor, "n p 2"],
    ) -> Float[Tensor, "n p"]:
        """Mask logits at any points, F_mask interpolated between its cells.

        Args:
            mask_features: (B, c, H/4, W/4).
            filters: (n, d).
            boxes: (n, 4) xyxy pixels of the network input.
            image: (n,) int64 index into the batch.
            points: (n, p, 2) x, y pixels of the network input.
        """
        sampled = sample_at(mask_features, points, image)
        return self.logits(sampled, points, filters.to(sampled.dtype), boxes)
