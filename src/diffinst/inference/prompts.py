"""What a person points at: boxes and clicks, checked, and the boxes that a run begins with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from diffinst.ops.boxes import area, clip, cxcywh_to_xyxy, iou, xyxy_to_cxcywh

T = TypeVar("T")
Numbers: TypeAlias = Tensor | NDArray[np.generic] | Sequence[Sequence[float]]
Points: TypeAlias = Numbers | Sequence[Numbers]
"""(n, 2) x, y pixels: a click on each of n objects; or n lists of them: several on each."""

BOX_SCALES = (1.0, 0.75, 1.33)  # a drawn box starts as it is, smaller and larger
CLICK_SIDES = (32.0, 96.0, 256.0)  # pixels of the network input, where nothing is known of objects
AROUND = 1.3  # the box of several clicks is so much larger than they lie apart
TIME = 0.1  # told to the decoder as a fraction of T; hardly matters (docs/diary.md)
NOTHING = 0.01  # agreement with a prompt that an answer does not cover


@dataclass(frozen=True)
class Prompt:
    """One object that a person means.

    Attributes:
        box: (4,) xyxy pixels of the original image, about where it is; None: only clicks are given.
        points: (p, 2) x, y pixels of the original image, on the object.
    """

    box: Tensor | None
    points: Tensor


@dataclass(frozen=True)
class Excluded:
    """What is not meant, for all prompts of a call.

    Attributes:
        points: (p, 2) x, y pixels of the original image.
        boxes: (b, 4) xyxy.
    """

    points: Tensor
    boxes: Tensor

    def __len__(self) -> int:
        return len(self.points) + len(self.boxes)


def prompts_of(
    boxes: Numbers | None,
    points: Points | None,
    exclude: Sequence[Sequence[float]] | None,
    size: tuple[int, int],
) -> tuple[list[Prompt], Excluded]:
    """Checked prompts, boxes first.

    Args:
        boxes: (n, 4) xyxy.
        points: See `Points`.
        exclude: Points (x, y) and boxes (x0, y0, x1, y1) of what is not meant.
        size: (height, width) of the image.

    Raises:
        ValueError: Nothing is asked for, a number that is none, something outside the image, a box
            turned inside out, a point that is meant and excluded; says which.
    """
    asked = [Prompt(box, torch.zeros(0, 2)) for box in _boxes("box", boxes, size)]
    for i, group in enumerate(_groups(points)):
        asked.append(Prompt(None, _points(f"points of object {i}", group, size)))
    if not asked:
        raise ValueError("prompt: nothing is asked for; give boxes=[[x0, y0, x1, y1], ...], or "
                         "points=[[x, y], ...]")  # fmt: skip
    given = _listed("exclude", exclude)
    odd = [item for item in given if not isinstance(item, Sized) or len(item) not in (2, 4)]
    if odd:
        raise ValueError(
            f"prompt: excluded is {odd[0]}; give x, y or x0, y0, x1, y1 for each: [[x, y], ...]"
        )
    excluded = Excluded(
        _points("excluded points", [p for p in given if len(p) == 2], size),
        _boxes("excluded box", [b for b in given if len(b) == 4], size),
    )
    for prompt in asked:
        both = (prompt.points[:, None] == excluded.points[None]).all(-1).any(1)
        if bool(both.any()):
            point = prompt.points[both][0].tolist()
            raise ValueError(f"prompt: point {point} is meant and excluded; omit it from one")
    return asked, excluded


def _groups(points: Points | None) -> list[Numbers]:
    """The clicks of each object."""
    groups = _listed("points", points)
    if groups and np.ndim(groups[0]) <= 1:
        return [[point] for point in groups]
    return groups


def _listed(name: str, values: Iterable[T] | None) -> list[T]:
    try:
        return [] if values is None else list(values)
    except TypeError:
        raise ValueError(f"prompt: {name} is {values}; give [[x, y], ...]") from None


def _numbers(name: str, values: Numbers, width: int) -> Tensor:
    form = "x, y" if width == 2 else "x0, y0, x1, y1"
    try:
        rows = [torch.as_tensor(row).detach().cpu() for row in values]
        given = torch.stack(rows).float() if rows else torch.zeros(0, width)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"prompt: {name}: no numbers {form} ({error})") from None
    if given.ndim != 2 or given.shape[1] != width:
        raise ValueError(f"prompt: {name}: shape {tuple(given.shape)}; give {form} for each")
    bad = ~given.isfinite().all(1)
    if bool(bad.any()):
        raise ValueError(f"prompt: {name} {given[bad][0].tolist()}; give finite {form}")
    return given


def _points(name: str, values: Numbers, size: tuple[int, int]) -> Tensor:
    given = _numbers(name, values, 2)
    height, width = size
    outside = ~((given >= 0).all(1) & (given[:, 0] <= width) & (given[:, 1] <= height))
    if bool(outside.any()):
        raise ValueError(
            f"prompt: {name}: {given[outside][0].tolist()} lies outside the image, which is "
            f"{width} wide and {height} high; give x, y pixels of this image"
        )
    return given


def _boxes(name: str, values: Numbers | None, size: tuple[int, int]) -> Tensor:
    given = _numbers(name, [] if values is None else values, 4)
    height, width = size
    for i, box in enumerate(given):
        if not bool((box[2:] > box[:2]).all()):
            raise ValueError(
                f"prompt: {name} {i} is {box.tolist()}; give x0, y0, x1, y1 with x0 < x1 and "
                "y0 < y1"
            )
        if not float(area(clip(box, size))):
            raise ValueError(
                f"prompt: {name} {i} is {box.tolist()}, outside the image, which is {width} wide "
                f"and {height} high; give pixels of this image"
            )
    return given


def starts_of(
    prompt: Prompt, excluded: Excluded, sides: Sequence[float], most: float
) -> Float[Tensor, "k 4"]:
    """Boxes to begin with for one prompt, (k, 4) xyxy pixels of the original image.

    A box starts as it is, smaller and larger. Clicks start as squares of the usual sizes, or around
    all of them; where something is excluded, away from it as well.

    Args:
        prompt: What is meant.
        excluded: What is not.
        sides: Usual sides of objects, pixels of the original image.
        most: Largest side that the model begins with, pixels of the original image.
    """
    if prompt.box is not None:
        cxcywh = xyxy_to_cxcywh(prompt.box)
        rows = [torch.cat([cxcywh[:2], cxcywh[2:] * scale]) for scale in BOX_SCALES]
    else:
        low, high = prompt.points.amin(0), prompt.points.amax(0)
        extent = (high - low) * AROUND
        rows = [torch.cat([(low + high) / 2, extent.clamp(min=side)]) for side in sides]
    if len(excluded.points):
        rows += [_moved_away(row, excluded.points) for row in rows]
    starts = torch.stack(rows)
    starts[:, 2:] = starts[:, 2:].clamp(max=most)
    return cxcywh_to_xyxy(starts)


def _moved_away(cxcywh: Tensor, points: Tensor) -> Tensor:
    """A box moved by a quarter of its size away from the nearest excluded point."""
    away = cxcywh[:2] - points
    nearest = away[away.norm(dim=1).argmin()]
    length = float(nearest.norm())
    if not length or not math.isfinite(length):
        return cxcywh
    return torch.cat([cxcywh[:2] + nearest / length * cxcywh[2:] / 4, cxcywh[2:]])


def box_agreement(prompt: Prompt, boxes: Float[Tensor, "m 4"]) -> Float[Tensor, "m"]:
    """(m,) IoU of answers' boxes with a drawn one, pixels of the original image."""
    assert prompt.box is not None
    return iou(prompt.box, boxes).clamp(min=NOTHING**2)
