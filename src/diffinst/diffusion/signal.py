"""Boxes as signal in [-s, s]: the way in, the way back, corruption in training (Eq. 4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

from diffinst.config import DiffusionConfig, StartsConfig
from diffinst.diffusion.near import StartDraw
from diffinst.diffusion.noise import draw_noise
from diffinst.diffusion.schedule import Schedule
from diffinst.ops.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh

MIN_SIZE = 1e-4  # padded boxes are never thinner than this fraction of the image
PAD_STD = 1 / 6
PAD_MEAN = 0.5


def _unit(scale: Tensor, config: DiffusionConfig) -> Tensor:
    """What the signal's [0, 1] stands for, in pixels: the image, or `size_pixels` for sizes.

    Args:
        scale: (..., 4) (w, h, w, h) of the unpadded image.
        config: For `size_pixels`.
    """
    if config.size_pixels is None:
        return scale
    return torch.cat([scale[..., :2], torch.full_like(scale[..., 2:], config.size_pixels)], dim=-1)


def to_signal(
    boxes: Float[Tensor, "*#batch 4"], scale: Float[Tensor, "*#batch 4"], config: DiffusionConfig
) -> Float[Tensor, "*batch 4"]:
    """Pixel boxes to signal: (2 x - 1) s of their cxcywh fractions, not clamped.

    Args:
        boxes: (..., 4) xyxy pixels.
        scale: Broadcasts (w, h, w, h) of the unpadded image.
        config: For s and the unit of sizes.
    """
    return (to_unit(boxes, scale, config) * 2 - 1) * config.scale


def to_unit(
    boxes: Float[Tensor, "*#batch 4"], scale: Float[Tensor, "*#batch 4"], config: DiffusionConfig
) -> Float[Tensor, "*batch 4"]:
    """Pixel boxes (..., 4) xyxy to cxcywh in the signal's own unit, [0, 1] for what fits."""
    if config.size_pixels is None:
        return xyxy_to_cxcywh(boxes / scale)
    return xyxy_to_cxcywh(boxes) / _unit(scale, config)


def from_signal(
    x: Float[Tensor, "*#batch 4"], scale: Float[Tensor, "*#batch 4"], config: DiffusionConfig
) -> Float32[Tensor, "*batch 4"]:
    """Signal, clamped to [-s, s], to pixel boxes (xyxy, float32)."""
    s = config.scale
    unit = (x.clamp(-s, s) / s + 1) / 2
    if config.size_pixels is None:
        return (cxcywh_to_xyxy(unit) * scale).float()
    return cxcywh_to_xyxy(unit * _unit(scale, config)).float()


@dataclass(frozen=True)
class Corruption:
    """The random draws of one training image.

    Attributes:
        t: Time in [0, T).
        noise: (N, 4) N(0, 1), for objects and padding alike.
        placeholder: (N, 4) N(0, 1), turned into padded boxes; the first N - max(n, 1) rows are
            used.
        order: (n,) a permutation that decides which objects stay where n > N.
        start: What replaces the noised objects, where `train.starts` asks for it.
    """

    t: int
    noise: Float[Tensor, "N 4"]
    placeholder: Float[Tensor, "_ 4"]
    order: Int64[Tensor, "n"]
    start: StartDraw | None = None

    @classmethod
    def draw(
        cls,
        proposals: int,
        objects: int,
        config: DiffusionConfig,
        generator: torch.Generator | None = None,
        starts: StartsConfig | None = None,
    ) -> Corruption:
        """Fresh draws, in the order t, noise, placeholder, order, start."""
        fraction = float(torch.rand((), generator=generator)) ** (1 / config.time_power)
        return cls(
            t=min(int(fraction * config.timesteps), config.timesteps - 1),
            noise=draw_noise(proposals, config, generator),
            placeholder=torch.randn(proposals, 4, generator=generator),
            order=torch.randperm(objects, generator=generator),
            start=None if starts is None else StartDraw.draw(objects, starts, generator),
        )


def kept_objects(
    count: int, proposals: int, order: Int64[Tensor, "n"]
) -> Int64[Tensor, "{min(count,proposals)}"]:
    """Indices of the objects that take part, in their own order: all, or N of them where n > N."""
    if count <= proposals:
        return torch.arange(count)
    return order[:proposals].sort().values


def pad_start(
    boxes_unit: Float[Tensor, "n 4"], placeholder: Float[Tensor, "_ 4"], proposals: int
) -> Float[Tensor, "{proposals} 4"]:
    """Objects first, then placeholders, up to N boxes; an image without objects gets a full one.

    Args:
        boxes_unit: (n, 4) cxcywh in the signal's unit, n <= N.
        placeholder: (>= N - max(n, 1), 4) raw N(0, 1) draws.
        proposals: N.

    Returns:
        (N, 4) cxcywh; only w and h are clipped below.
    """
    if not len(boxes_unit):
        boxes_unit = boxes_unit.new_tensor([[0.5, 0.5, 1.0, 1.0]])
    missing = proposals - len(boxes_unit)
    padding = placeholder[:missing] * PAD_STD + PAD_MEAN
    padding = torch.cat([padding[:, :2], padding[:, 2:].clamp(min=MIN_SIZE)], dim=-1)
    return torch.cat([boxes_unit, padding.to(boxes_unit)], dim=0)


def corrupt(
    boxes_unit: Float[Tensor, "n 4"],
    draws: Corruption,
    schedule: Schedule,
    config: DiffusionConfig,
) -> tuple[Float[Tensor, "N 4"], Float64[Tensor, "N 4"]]:
    """b_t of one image: pad to N, scale, add the noise of time t (Eq. 4, first line).

    Args:
        boxes_unit: (n, 4) cxcywh in the signal's unit (`to_unit`), n <= N.
        draws: The randomness.
        schedule: alpha-bar.
        config: Signal scale.

    Returns:
        x_start (N, 4) and x_t (N, 4) float64, not clamped.
    """
    padded = pad_start(boxes_unit, draws.placeholder, len(draws.noise))
    x_start = (padded * 2 - 1) * config.scale
    t = torch.tensor([draws.t], device=x_start.device)
    return x_start, schedule.add_noise(x_start[None], draws.noise.to(x_start)[None], t)[0]
