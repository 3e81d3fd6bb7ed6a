"""Which object of a video is which: what is found on a frame is assigned to what is followed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from diffinst.ops.boxes import iou
from diffinst.results.instances import Instances

Boxes = NDArray[np.float32]
Origin = tuple[int, int]
Placed = tuple[Origin, NDArray[np.bool_]]

CARRIED = 0.5
"""Weight of where a carried proposal ended; the rest is the overlap of the masks."""
LEAST = 0.15
"""Two with less in common than this, of 1, are never one object."""
MEMORY = 0.5
"""How much of a velocity stays when a new displacement is seen."""


@dataclass(frozen=True)
class Followed:
    """An object that has been seen.

    Attributes:
        id: From 1, never given twice.
        box: (4,) xyxy pixels, the smallest around its mask when it was last seen.
        velocity: (2,) x, y pixels a frame; None: seen once, so not known.
        mask: Its pixels when it was last seen, with their place (y0, x0).
        label: Its class.
        missed: Frames since then.
    """

    id: int
    box: Boxes
    velocity: NDArray[np.float32] | None
    mask: Placed
    label: int
    missed: int = 0


class Identities:
    """The objects that are followed, and the number that the next new one gets.

    Args:
        patience: Frames that an object may be missed before it ends.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.followed: list[Followed] = []
        self._next = 1

    def forget(self) -> None:
        """End all; numbers go on, so no id means two objects."""
        self.followed = []

    def shifts(self) -> NDArray[np.float32]:
        """(n, 2) how far each has gone, by its velocity, from where it was last seen.

        One that was seen once goes as the others do: the median of their velocities.
        """
        known = [one.velocity for one in self.followed if one.velocity is not None]
        usual = np.median(known, axis=0) if known else np.zeros(2)
        shifts = [
            (usual if one.velocity is None else one.velocity) * (one.missed + 1)
            for one in self.followed
        ]
        return np.array(shifts, np.float32).reshape(-1, 2)

    def expected(self) -> Boxes:
        """(n, 4) xyxy pixels, where each is expected on the next frame."""
        boxes = np.array([one.box for one in self.followed], np.float32).reshape(-1, 4)
        return boxes + np.tile(self.shifts(), 2)

    def likeness(self, found: Instances, ends: Boxes | None) -> NDArray[np.float32]:
        """(n, m) in [0, 1], how much each followed object and each one found have in common.

        Args:
            found: The m of a frame, on the CPU.
            ends: (n, 4) xyxy pixels, the box that each one's carried proposal ended at; None:
                nothing was carried, and the masks alone count.
        """
        masks = [one.mask for one in self.followed]
        there = list(found.mask_crops.placed())
        overlap = mask_iou(masks, there, np.rint(self.shifts()).astype(np.int64))
        if ends is not None and overlap.size:
            reached = iou(torch.from_numpy(ends)[:, None], found.boxes[None]).numpy()
            overlap = CARRIED * reached + (1 - CARRIED) * overlap
        labels = np.array([one.label for one in self.followed], np.int64)
        same: NDArray[np.bool_] = labels[:, None] == found.labels.numpy()[None]
        return np.where(same, overlap, 0.0).astype(np.float32)

    def take(self, found: Instances, threshold: float, ends: Boxes | None = None) -> Instances:
        """What is found on the next frame, with ids; what is too weak to be new is left out.

        Sure ones are assigned first, weak ones to what is still missed (ByteTrack's idea), and
        only sure ones begin a new object.

        Args:
            found: On the frame, weak ones included.
            threshold: Score from which on one is sure.
            ends: As in `likeness`.
        """
        found = found.to("cpu")
        likeness = self.likeness(found, ends)
        sure = found.scores.numpy() >= threshold
        places: dict[int, int] = {}  # position in `found`: position in `followed`
        for group in (np.flatnonzero(sure), np.flatnonzero(~sure)):
            free = np.setdiff1d(np.arange(len(self.followed)), list(places.values()))
            pairs = assigned(likeness[np.ix_(free, group)])
            places |= {int(group[j]): int(free[i]) for i, j in pairs}
        seen = self._seen(found, places, sure)
        missed = [
            replace(one, missed=one.missed + 1)
            for i, one in enumerate(self.followed)
            if i not in places.values() and one.missed < self.patience
        ]
        self.followed = [*seen.values(), *missed]
        ids = torch.tensor([one.id for one in seen.values()], dtype=torch.int64)
        return replace(found[list(seen)], ids=ids)

    def _seen(
        self, found: Instances, places: dict[int, int], sure: NDArray[np.bool_]
    ) -> dict[int, Followed]:
        """The objects seen on a frame by position in what is found there."""
        boxes = found.mask_crops.tight_boxes(empty=found.boxes).numpy()
        masks, labels = list(found.mask_crops.placed()), found.labels.tolist()
        seen = {}
        for j in range(len(found)):
            if j in places:
                before = self.followed[places[j]]
                number, velocity = before.id, _velocity(before, boxes[j])
            elif sure[j]:
                number, velocity = self._next, None
                self._next += 1
            else:
                continue
            seen[j] = Followed(number, boxes[j], velocity, masks[j], labels[j])
        return seen


def _velocity(before: Followed, box: Boxes) -> NDArray[np.float32]:
    """Pixels a frame: that since an object was last seen, smoothed."""
    moved = (box[:2] + box[2:] - before.box[:2] - before.box[2:]) / (2 * (before.missed + 1))
    if before.velocity is not None:
        moved = MEMORY * before.velocity + (1 - MEMORY) * moved
    return moved.astype(np.float32)


def assigned(likeness: NDArray[np.float32], least: float = LEAST) -> list[tuple[int, int]]:
    """Pairs (row, column), each row and column once, of the largest sum; none below `least`.

    Example:
        >>> assigned(np.array([[0.9, 0.8], [0.8, 0.0]], np.float32))
        [(0, 1), (1, 0)]
    """
    from scipy.optimize import linear_sum_assignment

    worth = np.where(likeness >= least, likeness, 0.0)  # else a weak pair could displace a good one
    rows, columns = linear_sum_assignment(worth, maximize=True)
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if likeness[i, j] >= least]


def mask_iou(
    a: Sequence[Placed], b: Sequence[Placed], shifts: NDArray[np.int64] | None = None
) -> NDArray[np.float32]:
    """(n, m) IoU of masks, each given as its pixels and their place (y0, x0).

    Args:
        a: n masks.
        b: m masks.
        shifts: (n, 2) x, y pixels that each of `a` is moved by first; None: not at all.
    """
    result = np.zeros((len(a), len(b)), np.float32)
    if not result.size:
        return result
    first, second = _extents(a), _extents(b)
    if shifts is not None:
        first = first + np.tile(shifts[:, ::-1], 2)
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    areas_a, areas_b = ([int(mask.sum()) for _, mask in masks] for masks in (a, b))
    for i, j in np.argwhere((high > low).all(2)):
        (y0, x0), (y1, x1) = low[i, j], high[i, j]
        one, other = (
            mask[y0 - box[0] : y1 - box[0], x0 - box[1] : x1 - box[1]]
            for mask, box in ((a[i][1], first[i]), (b[j][1], second[j]))
        )
        both = int(np.count_nonzero(one & other))
        result[i, j] = both / max(1, areas_a[i] + areas_b[j] - both)
    return result


def _extents(masks: Sequence[Placed]) -> NDArray[np.int64]:
    """(n, 4) y0, x0, y1, x1."""
    return np.array(
        [(y, x, y + mask.shape[0], x + mask.shape[1]) for (y, x), mask in masks], np.int64
    )
