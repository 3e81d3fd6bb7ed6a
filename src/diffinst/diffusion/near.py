"""Starts of training images other than noised objects: the draws, and boxes near objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from diffinst.config import StartsConfig

Kind: TypeAlias = Literal["prior", "own", "near"]
TRIES = 8  # points drawn in an object's box; the first on its mask counts
LARGEST_SCALING = 0.7  # log of the factor of a side at reach 1: half to twice the size


@dataclass(frozen=True)
class StartDraw:
    """The random draws of one image whose boxes start otherwise than by Eq. 4.

    Attributes:
        kind: See `StartsConfig`.
        strength: In [0, 1). `own`: where between `own_scores` the score lies from which on a box
            counts as found; `near`: the fraction of the objects that get a box.
        chosen: (n,) U(0, 1), below `strength` where the object gets a box.
        reach: (n,) U(0, 1), how far from its object a box may lie, in the object's own size.
        points: (n, TRIES, 2) U(0, 1), points in the object's box, as fractions of it.
        sides: (n, 2) U(-1, 1), which way width and height are scaled.
    """

    kind: Kind
    strength: float
    chosen: Float[Tensor, "n"]
    reach: Float[Tensor, "n"]
    points: Float[Tensor, "n tries 2"]
    sides: Float[Tensor, "n 2"]

    @classmethod
    def draw(
        cls, objects: int, config: StartsConfig, generator: torch.Generator | None = None
    ) -> StartDraw | None:
        """Fresh draws for an image of n objects; None: it starts as in the paper."""
        if config.prior + config.own + config.near == 0:
            return None
        where = float(torch.rand((), generator=generator))
        kind = _kind(where, config)
        if kind is None:
            return None
        return cls(
            kind,
            strength=float(torch.rand((), generator=generator)),
            chosen=torch.rand(objects, generator=generator),
            reach=torch.rand(objects, generator=generator),
            points=torch.rand(objects, TRIES, 2, generator=generator),
            sides=torch.rand(objects, 2, generator=generator) * 2 - 1,
        )

    def has_box(self, objects: int) -> Bool[Tensor, "n"]:
        """(n,) which of the first n objects get a box near them."""
        return self.chosen[:objects] < self.strength


def _kind(where: float, config: StartsConfig) -> Kind | None:
    for kind, fraction in (("prior", config.prior), ("own", config.own), ("near", config.near)):
        if where < fraction:
            return kind  # type: ignore[return-value]
        where -= fraction
    return None


def boxes_near(
    boxes: Float[Tensor, "n 4"], masks: Bool[Tensor, "n h w"], draw: StartDraw
) -> Float[Tensor, "n 4"]:
    """A box near each object: at reach 0 its own, at 1 centred anywhere on its mask.

    Args:
        boxes: (n, 4) xyxy pixels of the objects.
        masks: (n, h, w) of the objects; a click of a person lies on one.
        draw: The randomness.

    Returns:
        (n, 4) xyxy pixels: centres moved by `reach` of the way to a drawn point of the mask, sides
        scaled by a factor between exp(-0.7 reach) and exp(0.7 reach).
    """
    count, (height, width) = len(boxes), masks.shape[1:]
    points, sides, reach = (
        x[:count].to(boxes) for x in (draw.points, draw.sides, draw.reach[:, None])
    )
    corner, size = boxes[:, None, :2], (boxes[:, 2:] - boxes[:, :2])
    places = corner + points * size[:, None]  # (n, TRIES, 2)
    column = places[..., 0].long().clamp(0, width - 1)
    row = places[..., 1].long().clamp(0, height - 1)
    index = torch.arange(count, device=boxes.device)
    on_mask = masks[index[:, None], row, column]  # (n, TRIES)
    first = on_mask.int().argmax(1)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    target = torch.where(on_mask.any(1)[:, None], places[index, first], centre)
    moved = centre + reach * (target - centre)
    half = size / 2 * torch.exp(LARGEST_SCALING * reach * sides)
    return torch.cat([moved - half, moved + half], dim=1)
