"""Images to network inputs: sizes, resizing, padding into a batch."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float, Float32, UInt8
from torch import Tensor
from torch.nn import functional as F

from diffinst.structures import ImageBatch

SIZE_DIVISOR = 32  # the stride of p5
MOST_REDUCTION = 32  # on a GPU: a stronger one needs more memory than a multiprocessor shares


def fit_size(
    size: tuple[int, int], *, short_side: int | None, zoom: float, long_side: int
) -> tuple[int, int]:
    """Size (height, width) an image is resized to.

    Args:
        size: (height, width) of the image.
        short_side: The short side becomes this; None: both sides times `zoom`.
        zoom: Used where `short_side` is None.
        long_side: The long side is limited to this, the aspect ratio stays.

    Example:
        >>> fit_size((480, 640), short_side=800, zoom=1.0, long_side=1333)
        (800, 1067)
    """
    height, width = size
    factor = short_side / min(size) if short_side is not None else zoom
    if max(size) * factor > long_side:
        factor = long_side / max(size)
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def padded_size(size: tuple[int, int], divisor: int = SIZE_DIVISOR) -> tuple[int, int]:
    """(height, width) rounded up to multiples of the divisor."""
    return -(-size[0] // divisor) * divisor, -(-size[1] // divisor) * divisor


def resize(
    image: UInt8[Tensor, "3 h w"] | Float[Tensor, "3 h w"], size: tuple[int, int]
) -> Float32[Tensor, "3 {size[0]} {size[1]}"]:
    """(3, h, w) uint8 or float to (3, H, W) float32 in the same range, antialiased bilinear."""
    pixels = image.float()
    if tuple(image.shape[-2:]) == tuple(size):
        return pixels
    reduction = max(pixels.shape[-2] / size[0], pixels.shape[-1] / size[1])
    if pixels.is_cuda and reduction > MOST_REDUCTION:
        return resize(image.cpu(), size).to(image.device)
    pixels = F.interpolate(pixels[None], size=size, mode="bilinear", antialias=True)[0]
    return pixels.clamp(0, 255)


def pad_batch(
    images: Sequence[UInt8[Tensor, "3 _ _"] | Float[Tensor, "3 _ _"]], divisor: int = SIZE_DIVISOR
) -> ImageBatch:
    """(3, h, w) images in one batch, zero-padded at the bottom and right to a common multiple.

    Example:
        >>> import torch
        >>> pad_batch([torch.zeros(3, 30, 40), torch.zeros(3, 33, 20)]).pixels.shape
        torch.Size([2, 3, 64, 64])
    """
    sizes = tuple((int(image.shape[-2]), int(image.shape[-1])) for image in images)
    largest = max(h for h, _ in sizes), max(w for _, w in sizes)
    height, width = padded_size(largest, divisor)
    pixels = images[0].new_zeros((len(images), 3, height, width))
    for i, (image, (h, w)) in enumerate(zip(images, sizes, strict=True)):
        pixels[i, :, :h, :w] = image
    return ImageBatch(pixels, sizes)
