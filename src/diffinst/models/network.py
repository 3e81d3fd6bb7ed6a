"""The whole network: encode a batch once, denoise boxes any number of times, segment."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from diffinst.config import ModelConfig
from diffinst.models.backbone import STRIDES, Backbone
from diffinst.models.decoder import Decoder
from diffinst.models.fpn import FeaturePyramid
from diffinst.models.mask_branch import MaskBranch
from diffinst.models.mask_head import MaskHead
from diffinst.structures import Encoded, ImageBatch, Pyramid, StageOutput


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
        self.mask_head = MaskHead(config.filters, config.mask_branch.channels)
        self.backbone = Backbone(config.backbone, pretrained=pretrained)
        self.fpn = FeaturePyramid(self.backbone.channels, config.decoder.width)
        self.mask_branch = MaskBranch(config.decoder.width, config.mask_branch)
        self.decoder = Decoder(config.decoder, config.num_classes, self.mask_head.layout.size)
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
        return self.encoded(*self.features(self.normalized(images)), images)

    def features(
        self, pixels: Float[Tensor, "B 3 H W"]
    ) -> tuple[Float[Tensor, "B cells D"], Float[Tensor, "B c _ _"]]:
        """From `normalized` pixels (B, 3, H, W) to the pyramid's table and F_mask."""
        maps = self._maps(pixels)
        return Pyramid.of(maps).table, self.mask_branch(maps).float()

    def encoded(self, table: Tensor, mask_features: Tensor, images: ImageBatch) -> Encoded:
        """What `features` gives, with all that is known of the images it was made from."""
        height, width = images.pixels.shape[-2:]
        pyramid = Pyramid.of_table(table, [(height // s, width // s) for s in STRIDES])
        return Encoded(pyramid, mask_features, images.sizes, images.scale())

    def pyramid(self, images: ImageBatch) -> Pyramid:
        """p2..p5 of a batch: `encode` without the mask branch."""
        return Pyramid.of(self._maps(self.normalized(images)))

    def _maps(self, pixels: Tensor) -> tuple[Tensor, ...]:
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
        self, encoded: Encoded, boxes: Float[Tensor, "B N 4"], t: Int64[Tensor, "B *P"]
    ) -> list[StageOutput]:
        """f(b_t, t) of Eq. 4: boxes (B, N, 4) xyxy pixels at times t through all stages.

        t is (B,), one time for all proposals of an image, or (B, N), one for each.
        """
        outputs: list[StageOutput] = self.decoder(encoded.pyramid, boxes, t)
        return outputs
