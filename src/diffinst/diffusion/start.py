"""Where a run begins: noise, given boxes at a time, or both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy.typing import NDArray
from torch import Tensor

from diffinst.config import DiffusionConfig
from diffinst.diffusion.schedule import Schedule
from diffinst.diffusion.signal import to_signal

Boxes: TypeAlias = Tensor | NDArray[np.generic] | Sequence[Sequence[float]]


@dataclass(frozen=True)
class Start:
    """Boxes that a run begins with; noise boxes fill up to the number of proposals.

    Attributes:
        boxes: (n, 4) float32 xyxy pixels of the original image; they may lie partly outside.
        time: The time t that they are brought to (Eq. 2) and the run begins at, 0 to T - 1: near 0
            they stay nearly as they are, at T - 1 nothing is left of them.

    Raises:
        ValueError: No box, a shape that is no list of boxes, NaN or infinity, a box that is turned
            inside out, or a time below 0.

    Example:
        >>> Start([[10, 20, 60, 80]], time=100).boxes.shape
        torch.Size([1, 4])
    """

    boxes: Tensor
    time: int

    def __init__(self, boxes: Boxes, time: int) -> None:
        try:
            given = torch.as_tensor(boxes).detach().to("cpu", torch.float32)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"start: boxes are no (n, 4) numbers, xyxy pixels ({error})") from None
        if given.ndim != 2 or given.shape[1] != 4 or not len(given):
            raise ValueError(
                f"start: boxes of shape {tuple(given.shape)}; give (n, 4) xyxy pixels, one box "
                "at least (omit the start for noise alone)"
            )
        bad = ~(given.isfinite().all(1) & (given[:, 2:] > given[:, :2]).all(1))
        if bool(bad.any()):
            i = int(bad.nonzero()[0, 0])
            raise ValueError(
                f"start: box {i} is {given[i].tolist()}; give finite x0, y0, x1, y1 with x0 < x1 "
                "and y0 < y1"
            )
        if time < 0:
            raise ValueError(f"start: time is {time}; allowed are 0 to T - 1")
        object.__setattr__(self, "boxes", given)
        object.__setattr__(self, "time", int(time))

    def __len__(self) -> int:
        """Number of boxes."""
        return len(self.boxes)


def begin(
    start: Start,
    ratio: Float[Tensor, "4"],
    noise: Float[Tensor, "N 4"],
    scale: Float[Tensor, "1 4"],
    schedule: Schedule,
    config: DiffusionConfig,
) -> Float64[Tensor, "N 4"]:
    """x at the start's time: its boxes noised, then noise as it is.

    Args:
        start: The boxes.
        ratio: (4,) pixels of the network input per pixel of the original image, x, y, x, y.
        noise: (N, 4) the draws of one image, N(0, 1).
        scale: (1, 4) (w, h, w, h) of the unpadded network input.
        schedule: alpha-bar.
        config: Signal scale.

    Raises:
        ValueError: More boxes than proposals, or a time that the schedule does not have.
    """
    count = len(start)
    if count > len(noise):
        raise ValueError(
            f"start: {count} boxes, but {len(noise)} proposals; raise proposals to {count} at least"
        )
    if start.time >= len(schedule):
        raise ValueError(f"start: time is {start.time}; allowed are 0 to {len(schedule) - 1}")
    x_start = to_signal(start.boxes.to(scale.device) * ratio, scale, config)
    x_start = x_start.clamp(-config.scale, config.scale)
    t = torch.tensor([start.time], device=scale.device)
    x_t = schedule.add_noise(x_start[None], noise[None, :count], t)[0]
    return torch.cat([x_t, noise[count:].double()])
