"""What flows between the parts: images, their targets, features, a stage's output."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class ImageBatch:
    """Images of one padded size.

    Attributes:
        pixels: (B, 3, H, W) RGB in [0, 255], uint8 or float32, zero-padded at the bottom and right.
        sizes: (height, width) of each image inside the padding.
    """

    pixels: Tensor
    sizes: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        """Refuse what could only fail later."""
        if self.pixels.ndim != 4 or self.pixels.shape[1] != 3:
            raise ValueError(f"pixels must be (B, 3, H, W), got {tuple(self.pixels.shape)}")
        if len(self.sizes) != len(self.pixels):
            raise ValueError(f"{len(self.sizes)} sizes for {len(self.pixels)} images")
        height, width = self.pixels.shape[-2:]
        for h, w in self.sizes:
            if not (1 <= h <= height and 1 <= w <= width):
                raise ValueError(
                    f"size {(h, w)} does not lie inside the batch of {(height, width)}"
                )

    def __len__(self) -> int:
        """Number of images."""
        return len(self.sizes)

    def to(self, device: torch.device | str) -> ImageBatch:
        """The same batch on another device."""
        return replace(self, pixels=self.pixels.to(device, non_blocking=True))

    def scale(self) -> Tensor:
        """(B, 1, 4) float32 (w, h, w, h) of the unpadded images: normalised to pixel boxes."""
        return size_scale(self.sizes, self.pixels.device)


@dataclass(frozen=True)
class Targets:
    """The objects of one image.

    Attributes:
        boxes: (n, 4) float32 xyxy pixels of the network input.
        labels: (n,) int64 in [0, K).
        masks: (n, h, w) bool, the unpadded network input.
        image_id: For messages and for noise that does not depend on the batch.
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor
    image_id: int = 0

    def __post_init__(self) -> None:
        """Refuse fields that disagree."""
        n = len(self.boxes)
        if self.boxes.shape != (n, 4) or self.labels.shape != (n,) or self.masks.ndim != 3:
            raise ValueError(
                "targets need boxes (n, 4), labels (n,), masks (n, h, w); got "
                f"{tuple(self.boxes.shape)}, {tuple(self.labels.shape)}, {tuple(self.masks.shape)}"
            )
        if len(self.masks) != n:
            raise ValueError(f"{len(self.masks)} masks for {n} boxes")

    def __len__(self) -> int:
        """Number of objects."""
        return len(self.boxes)

    def __getitem__(self, keep: Tensor) -> Targets:
        """The objects at an index or mask tensor."""
        return replace(
            self, boxes=self.boxes[keep], labels=self.labels[keep], masks=self.masks[keep]
        )

    def to(self, device: torch.device | str) -> Targets:
        """The same targets on another device."""
        return replace(
            self,
            boxes=self.boxes.to(device),
            labels=self.labels.to(device),
            masks=self.masks.to(device),
        )


@dataclass(frozen=True)
class Features:
    """What `encode` keeps of a batch; every later step starts here.

    Attributes:
        pyramid: p2..p5, each (B, D, H/s, W/s), s = 4, 8, 16, 32.
        mask_features: F_mask, (B, c, H/4, W/4) float32.
        sizes: (height, width) of each unpadded image.
    """

    pyramid: tuple[Tensor, ...]
    mask_features: Tensor
    sizes: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.sizes)

    def scale(self) -> Tensor:
        """(B, 1, 4) float32 (w, h, w, h) of the unpadded images."""
        return size_scale(self.sizes, self.mask_features.device)

    def to(self, device: torch.device | str) -> Features:
        """The same features on another device."""
        return replace(
            self,
            pyramid=tuple(level.to(device) for level in self.pyramid),
            mask_features=self.mask_features.to(device),
        )


@dataclass(frozen=True)
class StageOutput:
    """What one decoder stage predicts.

    Attributes:
        logits: (B, N, K) class logits.
        boxes: (B, N, 4) float32 xyxy pixels of the network input, not clipped.
        filters: (B, N, d) theta.
        queries: (B, N, D) proposal features handed to the next stage.
    """

    logits: Tensor
    boxes: Tensor
    filters: Tensor
    queries: Tensor


def size_scale(sizes: tuple[tuple[int, int], ...], device: torch.device | str) -> Tensor:
    """(B, 1, 4) float32 (w, h, w, h) from (height, width) pairs."""
    rows = [[w, h, w, h] for h, w in sizes]
    return torch.tensor(rows, dtype=torch.float32, device=device).view(-1, 1, 4)
