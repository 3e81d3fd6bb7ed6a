"""A part of a large image that a model looks at alone, around what a person points at."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffinst.io.images import Pixels
from diffinst.results.crops import CroppedMasks
from diffinst.results.instances import Instances

SIDE = 512  # pixels of a window, at least
GRID = 128  # its corners lie on, so that clicks near each other share one
PART = 640  # pixels of the side of a part that is trained on: nano takes it whole at its own zoom
AROUND = 3.0  # a window is so much larger than the box in it


@dataclass(frozen=True)
class Window:
    """A rectangle inside an image, in its pixels."""

    y: int
    x: int
    height: int
    width: int

    @classmethod
    def around(cls, xs: list[float], ys: list[float], size: tuple[int, int]) -> Window:
        """The window around points, inside an image of (height, width), with room beside them."""
        (y, height), (x, width) = _span(ys, size[0]), _span(xs, size[1])
        return cls(y, x, height, width)

    @classmethod
    def grid(cls, size: tuple[int, int]) -> list[Window]:
        """Windows of at most `PART` pixels a side that cover an image of (height, width) once."""
        return [
            cls(y, x, min(PART, size[0] - y), min(PART, size[1] - x))
            for y in range(0, size[0], PART)
            for x in range(0, size[1], PART)
        ]

    def cut(self, found: Instances) -> Instances:
        """What of the instances lies in it, in its pixels; boxes are those of the masks."""
        kept, windows, patches = [], [], []
        for i, ((top, left), mask) in enumerate(found.mask_crops.placed()):
            y0, x0 = max(self.y, top), max(self.x, left)
            y1 = min(self.y + self.height, top + mask.shape[0])
            x1 = min(self.x + self.width, left + mask.shape[1])
            part = mask[y0 - top : max(y0, y1) - top, x0 - left : max(x0, x1) - left]
            if part.any():
                kept.append(i)
                windows.append([y0 - self.y, x0 - self.x, *part.shape])
                patches.append(torch.from_numpy(part.copy()))
        size = (self.height, self.width)
        rows = torch.tensor(windows, dtype=torch.int64).reshape(-1, 4)
        masks, some = CroppedMasks(rows, tuple(patches), size), found[kept]
        return replace(some, boxes=masks.tight_boxes(), mask_crops=masks, image_size=size)

    def of(self, pixels: Pixels) -> Pixels:
        """What is in it."""
        return pixels[self.y : self.y + self.height, self.x : self.x + self.width]

    def holds(self, place: list[float]) -> bool:
        """Whether a point, or a part of a box, lies in it."""
        x0, y0, x1, y1 = *place[:2], *place[-2:]
        before = x0 < self.x + self.width and y0 < self.y + self.height
        return before and x1 > self.x and y1 > self.y

    def inside(self, place: list[float]) -> list[float]:
        """A point or a box in its pixels."""
        return [value - (self.y if i % 2 else self.x) for i, value in enumerate(place)]

    def outside(self, found: Instances, size: tuple[int, int]) -> Instances:
        """What was found in it, in pixels of the image of (height, width)."""
        masks = found.mask_crops
        windows = masks.windows + self._shift(self.y, self.x, 0, 0, like=masks.windows)
        boxes = found.boxes + self._shift(self.x, self.y, self.x, self.y, like=found.boxes)
        moved = CroppedMasks(windows, masks.patches, size)
        return replace(found, boxes=boxes, mask_crops=moved, image_size=size, image=None)

    @staticmethod
    def _shift(*by: int, like: Tensor) -> Tensor:
        return torch.tensor(by, dtype=like.dtype, device=like.device)


def _span(values: list[float], most: int) -> tuple[int, int]:
    """Where a window begins along one side, and how long it is."""
    low, high = max(0.0, min(values)), min(float(most), max(values))
    length = min(most, max(SIDE, int(AROUND * (high - low))) + GRID)
    begin = int((low + high - length) / 2) // GRID * GRID
    return min(max(begin, 0), most - length), length
