"""Where a run begins: noise, given boxes at a time, or both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy.typing import NDArray
from torch import Tensor

from diffinst.config import DiffusionConfig
from diffinst.diffusion.schedule import Schedule, time_pairs
from diffinst.diffusion.signal import to_signal
from diffinst.structures import Encoded

Boxes: TypeAlias = Tensor | NDArray[np.generic] | Sequence[Sequence[float]]


@dataclass(frozen=True)
class Start:
    """Boxes that a run begins with; noise boxes fill up to the number of proposals.

    Attributes:
        boxes: (n, 4) float32 xyxy pixels of the original image; they may lie partly outside.
        time: The time t that they are brought to (Eq. 2) and the run begins at, 0 to T - 1: near 0
            they stay nearly as they are, at T - 1 nothing is left of them.
        noised: False: they go in as they are, and the decoder is only told the time: a person's
            box, or one that was found before, is off by an error of its own.

    A model with `diffusion.size_pixels` knows boxes up to that size, in pixels of the network
    input, and refuses larger ones when it is asked.

    Raises:
        ValueError: No box, a shape that is no list of boxes, NaN or infinity, a box that is turned
            inside out, or a time below 0.

    Example:
        >>> Start([[10, 20, 60, 80]], time=100).boxes.shape
        torch.Size([1, 4])
    """

    boxes: Tensor
    time: int
    noised: bool = True

    def __init__(self, boxes: Boxes, time: int, *, noised: bool = True) -> None:
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
        object.__setattr__(self, "noised", noised)

    def __len__(self) -> int:
        """Number of boxes."""
        return len(self.boxes)


def visited(
    steps: int,
    times: Sequence[int] | None,
    schedule: Schedule,
    starts: Sequence[Start] = (),
) -> list[tuple[int, int]]:
    """(now, next) of each step: the given times, or even ones from the starts' time down.

    Args:
        steps: How many, where no times are given.
        times: Decreasing; None: even ones.
        schedule: For T.
        starts: None: the run begins at T - 1.

    Raises:
        ValueError: Starts of several times, times that begin elsewhere, or more steps than there
            are times below theirs.
    """
    first = {start.time for start in starts}
    if len(first) > 1:
        raise ValueError(f"starts of times {sorted(first)} in one batch; give one time to all")
    if times is not None:
        if first and times[0] not in first:
            raise ValueError(
                f"start: its time is {min(first)}, but times begin with {times[0]}; make them "
                "alike, or give steps in place of times"
            )
        return list(pairwise([*times, -1]))
    return time_pairs(steps, len(schedule), first.pop() if first else None)


def begin(
    starts: Sequence[Start],
    outputs: Sequence[tuple[int, int]],
    encoded: Encoded,
    noise: Float[Tensor, "B N 4"],
    schedule: Schedule,
    config: DiffusionConfig,
) -> Float64[Tensor, "B N 4"]:
    """x at the starts' time: their boxes, noised if so asked; the other proposals are pure noise.

    Args:
        starts: One per image.
        outputs: (height, width) of the original images, in whose pixels the starts are.
        encoded: The images.
        noise: (B, N, 4) draws, N(0, 1).
        schedule: alpha-bar.
        config: Signal scale.

    Raises:
        ValueError: More boxes than proposals, or a time that the schedule does not have.
    """
    rows = []
    for i, (start, output) in enumerate(zip(starts, outputs, strict=True)):
        count, (height, width), scale = len(start), encoded.sizes[i], encoded.scale[i]
        if count > noise.shape[1]:
            raise ValueError(
                f"start: {count} boxes, but {noise.shape[1]} proposals; raise proposals to {count} "
                "at least"
            )
        if start.time >= len(schedule):
            raise ValueError(f"start: time is {start.time}; allowed are 0 to {len(schedule) - 1}")
        ratio = scale.new_tensor([width / output[1], height / output[0]]).repeat(2)
        boxes = start.boxes.to(scale.device) * ratio
        _check_sides(boxes, config)
        x_start = to_signal(boxes, scale, config)
        x_start = x_start.clamp(-config.scale, config.scale)
        x_t = x_start.double()
        if start.noised:
            t = torch.tensor([start.time], device=scale.device)
            x_t = schedule.add_noise(x_start[None], noise[i : i + 1, :count], t)[0]
        rows.append(torch.cat([x_t, noise[i, count:].double()]))
    return torch.stack(rows)


def _check_sides(boxes: Tensor, config: DiffusionConfig) -> None:
    """Refuse boxes that the signal has no numbers for; clamped, they would shrink."""
    if config.size_pixels is None:
        return
    sides = (boxes[:, 2:] - boxes[:, :2]).amax(1)
    i = int(sides.argmax())
    if float(sides[i]) > config.size_pixels:
        raise ValueError(
            f"start: box {i} has a side of {float(sides[i]):.0f} pixels of the network input; this "
            f"model begins with boxes up to {config.size_pixels:g} (diffusion.size_pixels)"
        )
