"""Colours of other dyes for images in colour, and which images these are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

LARGEST_GREY_SPREAD = 3.0  # of 255, mean difference of the channels of a grey image saved as JPEG


def in_colour(image: npt.NDArray[np.uint8]) -> bool:
    """Whether the channels of an RGB image (h, w, 3) differ by more than compression makes them."""
    channels = image.astype(np.int16)
    spread = channels.max(2) - channels.min(2)
    return bool(spread.mean() > LARGEST_GREY_SPREAD)


def jitter_stain(pixels: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    """Another dye: the optical density -log(I / 255) of each pixel through a random 3x3 matrix.

    Args:
        pixels: (3, h, w) uint8; grey images stay as they are.
        strength: Each entry of the matrix lies within so much of the identity's.
        rng: The randomness.
    """
    if strength == 0:
        return pixels
    matrix = torch.eye(3) + strength * torch.from_numpy(rng.uniform(-1, 1, (3, 3))).float()
    if not in_colour(pixels.permute(1, 2, 0).numpy()):
        return pixels
    density = -((pixels.float() + 1) / 256).log()
    mixed = torch.einsum("ij,jhw->ihw", matrix, density).clamp(min=0)
    return ((-mixed).exp() * 256 - 1).round().clamp(0, 255).to(torch.uint8)
