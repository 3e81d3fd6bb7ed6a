"""The whole network: encode a batch once, denoise boxes any number of times, segment."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from diffinst.config import ModelConfig
from diffinst.kernels.choice import roi_kernel
from diffinst.models.backbone import Backbone
from diffinst.models.decoder import Decoder
from diffinst.models.fpn import FeaturePyramid
from diffinst.models.mask_branch import MaskBranch
from diffinst.ops.filters import FilterLayout, apply_filters, relative_coordinates
from diffinst.ops.masks import enlarge, grid_points, map_points, sample_at
from diffinst.ops.roi_align import FeatureTable
from diffinst.structures import Features, ImageBatch, StageOutput


@dataclass(frozen=True)
class Encoded:
    """What every step starts from; made by `DiffusionInstNetwork.encode`.

    Attributes:
        features: Pyramid and F_mask.
        table: The pyramid as the decoder reads it.
        scale: (B, 1, 4) float32 (w, h, w, h) of the unpadded images.
    """

    features: Features
    table: FeatureTable
    scale: Tensor


class DiffusionInstNetwork(nn.Module):
    """Backbone, pyramid, mask branch and decoder; knows nothing of diffusion but the time input.

    Args:
        config: The architecture.
        pretrained: Load ImageNet weights into the backbone (file or hub); else random.

    Example:
        >>> from diffinst.config import Config
        >>> network = DiffusionInstNetwork(Config.from_preset("tiny").model).eval()
        >>> batch = ImageBatch(torch.zeros(1, 3, 64, 64), ((64, 64),))
        >>> encoded = network.encode(batch)
        >>> boxes = torch.tensor([[[8.0, 8.0, 40.0, 40.0]]])
        >>> stages = network.denoise(encoded, boxes, torch.tensor([999]))
        >>> stages[-1].boxes.shape
        torch.Size([1, 1, 4])
    """

    image_mean: Tensor
    image_std: Tensor

    def __init__(self, config: ModelConfig, *, pretrained: bool = False) -> None:
        super().__init__()
        self.config = config
        filters = config.filters
        inputs = config.mask_branch.channels + (2 if filters.coordinates else 0)
        self.layout = FilterLayout(inputs, filters.channels, filters.layers)
        self.backbone = Backbone(config.backbone, pretrained=pretrained)
        self.fpn = FeaturePyramid(self.backbone.channels, config.decoder.width)
        self.mask_branch = MaskBranch(config.decoder.width, config.mask_branch)
        self.decoder = Decoder(config.decoder, config.num_classes, self.layout.size)
        for parameter in self.mask_branch.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        mean = torch.tensor(config.backbone.image_mean).view(1, 3, 1, 1)
        std = torch.tensor(config.backbone.image_std).view(1, 3, 1, 1)
        self.register_buffer("image_mean", mean, persistent=False)
        self.register_buffer("image_std", std, persistent=False)

    def encode(self, images: ImageBatch) -> Encoded:
        """Images through backbone, pyramid and mask branch; once, whatever the number of steps.

        Args:
            images: (B, 3, H, W), H and W multiples of 32; normalised here, padding zeroed after.
        """
        return self.encode_normalized(self.normalized(images), images.sizes, images.scale())

    def encode_normalized(
        self,
        pixels: Float[Tensor, "B 3 H W"],
        sizes: tuple[tuple[int, int], ...],
        scale: Float[Tensor, "B 1 4"],
    ) -> Encoded:
        """`encode` of pixels from `normalized`: all that happens on the device, nothing else.

        Args:
            pixels: (B, 3, H, W).
            sizes: (height, width) of each image inside the padding.
            scale: (B, 1, 4) the same as (w, h, w, h).
        """
        pyramid = self._pyramid(pixels)
        features = Features(pyramid, self.mask_branch(pyramid).float(), sizes)
        kernel = roi_kernel(pyramid[0].device, pyramid[0].dtype)
        return Encoded(features, FeatureTable(pyramid, kernel), scale)

    def pyramid(self, images: ImageBatch) -> tuple[Tensor, ...]:
        """p2..p5 of a batch: `encode` without the mask branch."""
        return self._pyramid(self.normalized(images))

    def _pyramid(self, pixels: Tensor) -> tuple[Tensor, ...]:
        maps = self.backbone(pixels)
        if self.backbone.dtype != self.dtype:  # autocast has chosen for itself
            maps = [m.to(self.dtype) for m in maps]
        pyramid: tuple[Tensor, ...] = self.fpn(maps)
        return pyramid

    def normalized(self, images: ImageBatch) -> Float[Tensor, "B 3 H W"]:
        """Pixels as the backbone takes them, zero in the padding."""
        pixels = (images.pixels.float() - self.image_mean) / self.image_std
        height, width = pixels.shape[-2:]
        for i, (h, w) in enumerate(images.sizes):
            if (h, w) != (height, width):
                pixels[i, :, h:] = 0
                pixels[i, :, :, w:] = 0
        return pixels.to(self.backbone.dtype).contiguous(memory_format=torch.channels_last)

    @property
    def dtype(self) -> torch.dtype:
        """What pyramid and queries are computed in; heads and boxes are float32 at least."""
        return self.fpn.laterals[0].weight.dtype  # type: ignore[return-value]

    def denoise(
        self, encoded: Encoded, boxes: Float[Tensor, "B N 4"], t: Int64[Tensor, "B"]
    ) -> list[StageOutput]:
        """f(b_t, t) of Eq. 4: boxes (B, N, 4) xyxy pixels at times t (B,) through all stages."""
        outputs: list[StageOutput] = self.decoder(encoded.table, boxes, t)
        return outputs

    def map_logits(
        self,
        features: Features,
        filters: Float[Tensor, "n d"],
        boxes: Float[Tensor, "n 4"],
        image: Int64[Tensor, "n"],
    ) -> Float[Tensor, "n h w"]:
        """Mask logits on all of F_mask (Eq. 3).

        Args:
            features: Encoded batch.
            filters: (n, d).
            boxes: (n, 4) xyxy pixels of the network input; used where filters see coordinates.
            image: (n,) int64 index into the batch, ascending.

        Returns:
            (n, H/4, W/4).
        """
        maps = features.mask_features
        size = (int(maps.shape[-2]), int(maps.shape[-1]))
        parts = []
        for i in range(len(features)):
            mine = image == i
            points = maps[i].flatten(1)  # (c, H/4 * W/4)
            if self.config.filters.coordinates:
                seen = relative_coordinates(map_points(size, maps.device), boxes[mine])
                shared = points.expand(len(seen), -1, -1)
                points = torch.cat([seen.transpose(1, 2).to(shared), shared], dim=1)
            parts.append(apply_filters(points, filters[mine], self.layout))
        return torch.cat(parts).view(-1, *size)

    def grid_logits(
        self,
        features: Features,
        filters: Float[Tensor, "n d"],
        boxes: Float[Tensor, "n 4"],
        image: Int64[Tensor, "n"],
        size: int,
    ) -> tuple[Float[Tensor, "n {size*size}"], Float[Tensor, "n {size*size} 2"]]:
        """Mask logits on a size x size grid inside each (enlarged) box.

        Args:
            features: Encoded batch.
            filters: (n, d).
            boxes: (n, 4) xyxy pixels of the network input; coordinates are relative to them.
            image: (n,) int64 index into the batch.
            size: Points per side.

        Returns:
            logits (n, size * size) and the points (n, size * size, 2) x, y pixels they stand for.
        """
        points = grid_points(enlarge(boxes, self.config.filters.grid_margin), size)
        return self.point_logits(features, filters, boxes, image, points), points

    def point_logits(
        self,
        features: Features,
        filters: Float[Tensor, "n d"],
        boxes: Float[Tensor, "n 4"],
        image: Int64[Tensor, "n"],
        points: Float[Tensor, "n p 2"],
    ) -> Float[Tensor, "n p"]:
        """Mask logits at any points: (n, p, 2) x, y pixels of the network input to (n, p)."""
        sampled = sample_at(features.mask_features, points, image)  # (n, c, p)
        if self.config.filters.coordinates:
            seen = relative_coordinates(points, boxes).transpose(1, 2)
            sampled = torch.cat([seen.to(sampled), sampled], dim=1)
        return apply_filters(sampled, filters.to(sampled.dtype), self.layout)
