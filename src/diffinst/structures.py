"""What flows between the parts: images, their targets, what is encoded, predicted, proposed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

FIRST_LEVEL = 2  # p2, stride 4


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


class Levels(NamedTuple):
    """Where the levels of a pyramid lie in an image's part of its table; one entry per level.

    Attributes:
        heights: (levels,) int64 rows of cells.
        widths: (levels,) int64 columns of cells.
        starts: (levels,) int64 first row in the table.
        scales: (levels,) float32 cells per pixel of the network input.
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


@dataclass(frozen=True)
class Pyramid:
    """Maps p2, p3, ... as one table, so that a box of any level is read in one gather.

    Attributes:
        table: (B, cells, D), the levels below each other, each row by row.
        shapes: (height, width) of each level.
        levels: The same as tensors.
    """

    table: Tensor
    shapes: tuple[tuple[int, int], ...]
    levels: Levels

    @classmethod
    def of(cls, maps: Sequence[Tensor]) -> Pyramid:
        """From p2, p3, ..., each (B, D, H/s, W/s), s = 4, 8, ..."""
        rows = [p.flatten(2).transpose(1, 2) for p in maps]  # (B, H*W, D) each
        shapes = [(int(p.shape[-2]), int(p.shape[-1])) for p in maps]
        return cls.of_table(torch.cat(rows, dim=1).contiguous(), shapes)

    @classmethod
    def of_table(cls, table: Tensor, shapes: Sequence[tuple[int, int]]) -> Pyramid:
        """From a table and the shapes of its levels."""
        return cls(table, tuple(shapes), Levels.of(shapes, table.device))

    @property
    def maps(self) -> tuple[Tensor, ...]:
        """p2, p3, ..., each (B, D, H/s, W/s), as views of the table."""
        parts = torch.split(self.table, [h * w for h, w in self.shapes], dim=1)
        return tuple(
            part.transpose(1, 2).view(len(part), -1, *shape)
            for part, shape in zip(parts, self.shapes, strict=True)
        )


@dataclass(frozen=True)
class Encoded:
    """What `encode` keeps of a batch: every step and every mask starts here.

    Attributes:
        pyramid: p2..p5.
        mask_features: F_mask, (B, c, H/4, W/4) float32.
        sizes: (height, width) of each image inside the padding, pixels of the network input.
        scale: (B, 1, 4) float32 the same as (w, h, w, h): normalised to pixel boxes.
    """

    pyramid: Pyramid
    mask_features: Tensor
    sizes: tuple[tuple[int, int], ...]
    scale: Tensor

    @classmethod
    def for_masks(cls, mask_features: Tensor, sizes: tuple[tuple[int, int], ...]) -> Encoded:
        """Of F_mask alone: masks can be made of it, boxes cannot be denoised on it."""
        scale = size_scale(sizes, mask_features.device)
        return cls(Pyramid.of([mask_features]), mask_features, sizes, scale)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.sizes)

    def __getitem__(self, index: int | slice) -> Encoded:
        """Some of the images, as a batch again; views, nothing is copied."""
        places = range(len(self))[index]
        some = slice(places, places + 1) if isinstance(places, int) else index
        assert isinstance(some, slice)
        return Encoded(
            replace(self.pyramid, table=self.pyramid.table[some]),
            self.mask_features[some],
            self.sizes[some],
            self.scale[some],
        )

    def expand(self, count: int) -> Encoded:
        """One image `count` times, for as many starts on it; views, nothing is copied.

        Raises:
            ValueError: There are several images.
        """
        if len(self) != 1:
            raise ValueError(f"{len(self)} images; only one can be expanded, index it first")
        return Encoded(
            replace(self.pyramid, table=self.pyramid.table.expand(count, -1, -1)),
            self.mask_features.expand(count, -1, -1, -1),
            self.sizes * count,
            self.scale.expand(count, -1, -1),
        )

    @classmethod
    def cat(cls, parts: Sequence[Encoded]) -> Encoded:
        """Images of one padded size as one batch.

        Raises:
            ValueError: Nothing to join, or padded sizes differ.
        """
        shapes = {part.pyramid.shapes for part in parts}
        if len(shapes) != 1:
            raise ValueError(
                f"cannot join {len(parts)} encoded batches of pyramid sizes {sorted(shapes)}; give "
                "at least one, all of one padded size"
            )
        table = torch.cat([part.pyramid.table for part in parts])
        return cls(
            replace(parts[0].pyramid, table=table),
            torch.cat([part.mask_features for part in parts]),
            tuple(size for part in parts for size in part.sizes),
            torch.cat([part.scale for part in parts]),
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


@dataclass(frozen=True)
class Candidates:
    """Scored candidates of a batch, M per image.

    Attributes:
        boxes: (B, M, 4) xyxy pixels of the network input, not clipped.
        scores: (B, M) probabilities; -1 where there is no candidate.
        labels: (B, M) int64.
        filters: (B, M, d) theta.
        proposals: (B, M) int64, the row of each one's proposal in its step.
    """

    boxes: Float[Tensor, "B M 4"]
    scores: Float[Tensor, "B M"]
    labels: Int64[Tensor, "B M"]
    filters: Float[Tensor, "B M d"]
    proposals: Int64[Tensor, "B M"]

    @classmethod
    def cat(cls, parts: Sequence[Candidates]) -> Candidates:
        """Those of several steps, side by side."""
        return cls(
            *(torch.cat(column, dim=1) for column in zip(*map(_columns, parts), strict=True))
        )

    @classmethod
    def where(cls, images: Bool[Tensor, "B"], those: Candidates, others: Candidates) -> Candidates:
        """Of each image those or the others, as (B,) bool says; M is the same."""
        pairs = zip(_columns(those), _columns(others), strict=True)
        return cls(*(torch.where(images.view(-1, *[1] * (a.ndim - 1)), a, b) for a, b in pairs))


def _columns(candidates: Candidates) -> tuple[Tensor, ...]:
    return tuple(getattr(candidates, field.name) for field in fields(candidates))


def size_scale(sizes: tuple[tuple[int, int], ...], device: torch.device | str) -> Tensor:
    """(B, 1, 4) float32 (w, h, w, h) from (height, width) pairs."""
    rows = [[w, h, w, h] for h, w in sizes]
    return torch.tensor(rows, dtype=torch.float32, device=device).view(-1, 1, 4)
