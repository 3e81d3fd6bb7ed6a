"""Masks of one image's detections, each inside its own window of the original image.

Filters run where their windows need them; the probabilities are resampled to the windows and cut at
a threshold: window by window on a CPU, all together where the device would wait between them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from diffinst.inference.select import Detections
from diffinst.models.mask_head import MaskHead
from diffinst.ops.boxes import clip
from diffinst.ops.masks import enlarge, map_points
from diffinst.ops.resample import (
    Axis,
    AxisTaps,
    grid_to_output,
    laid_out,
    map_to_output,
    threshold_together,
    threshold_window,
)
from diffinst.results.crops import CroppedMasks
from diffinst.structures import Encoded

CELLS = 2**22  # of maps evaluated at once; eight numbers each
LINES = 2**16  # rows and columns of windows whose cells are looked up at once; 100 bytes each

Cells = tuple[int, int]


def crop_masks(
    detections: Detections,
    encoded: Encoded,
    image: int,
    output: tuple[int, int],
    head: MaskHead,
    threshold: float,
) -> CroppedMasks:
    """The masks of an image's detections.

    Args:
        detections: Their boxes and filters.
        encoded: The batch.
        image: Index into the batch.
        output: (height, width) of the original image.
        head: Runs the filters.
        threshold: Probability from which on a pixel belongs to a mask.
    """
    kind = _Grids if head.config.evaluate == "grid" else _Maps
    fields = kind(detections, encoded, image, output, head)
    cut = _together if together(detections.boxes.device) else _one_by_one
    patches = cut(fields, threshold)
    windows = torch.tensor(fields.windows, dtype=torch.int64).view(-1, 4)
    return CroppedMasks(windows, tuple(patches), output)


def together(device: torch.device) -> bool:
    """Whether all masks of an image are made together."""
    return device.type != "cpu"


class _Fields(Protocol):
    """The probabilities of n masks, and how they lie over the image.

    Attributes:
        windows: n times (y0, x0, height, width) in pixels of the original image.
    """

    windows: list[list[int]]

    def rows(self, first: int, mask: Tensor, y: Tensor) -> AxisTaps:
        """Which cells rows (m,) of the image blend, of the masks first + mask, (m,)."""
        ...

    def columns(self, first: int, mask: Tensor, x: Tensor) -> AxisTaps:
        """The same of columns."""
        ...

    def support(self, rows: AxisTaps, columns: AxisTaps) -> tuple[Cells, Cells]:
        """First and one past the last row and column of cells that a window reads."""
        ...

    def part(self, mask: int, high: Cells, wide: Cells) -> Tensor:
        """(h, w) probabilities of one mask on a part of its cells, on the CPU."""
        ...

    def whole(self) -> Iterator[tuple[slice, Tensor]]:
        """Which masks, and their (m, h, w) probabilities on all cells, some at a time."""
        ...


def _one_by_one(fields: _Fields, threshold: float) -> list[Tensor]:
    patches = []
    for start, windows in _groups(fields.windows):
        rows = _taps(partial(fields.rows, start), [(y0, height) for y0, _, height, _ in windows])
        columns = _taps(
            partial(fields.columns, start), [(x0, width) for _, x0, _, width in windows]
        )
        for i, (_, _, height, width) in enumerate(windows):
            if not height or not width:
                patches.append(torch.zeros(height, width, dtype=torch.bool))
                continue
            high, wide = fields.support(rows[i], columns[i])
            probs = fields.part(start + i, high, wide)
            matrix = rows[i].matrix(0, height, high)
            patches.append(threshold_window(probs, matrix, columns[i], wide, threshold))
    return patches


def _groups(windows: list[list[int]]) -> Iterator[tuple[int, list[list[int]]]]:
    """Windows of about `LINES` rows and columns, and the number of the first."""
    start, lines = 0, 0
    for i, (_, _, height, width) in enumerate(windows):
        if lines > LINES:
            yield start, windows[start:i]
            start, lines = i, 0
        lines += height + width
    yield start, windows[start:]


def _taps(axis: Axis, spans: list[tuple[int, int]]) -> list[AxisTaps]:
    """What the rows or columns of windows blend, worked out for all windows at once.

    Args:
        axis: Of all of them.
        spans: First pixel and number of pixels of each.
    """
    first, length = torch.tensor(spans, dtype=torch.int64).view(-1, 2).unbind(1)
    which, place = laid_out(length, int(length.sum()))
    taps, lengths = axis(which, first[which] + place), length.tolist()
    pairs = zip(taps.index.split(lengths), taps.weight.split(lengths), strict=True)
    return [AxisTaps(index, weight) for index, weight in pairs]


def _together(fields: _Fields, threshold: float) -> list[Tensor]:
    patches = []
    for some, probs in fields.whole():
        rows, columns = partial(fields.rows, some.start), partial(fields.columns, some.start)
        patches += threshold_together(probs, fields.windows[some], rows, columns, threshold)
    return patches


class _Maps:
    """Filters on the stride-4 cells of F_mask, the same cells for all masks (the paper).

    A window is rows floor(y0)..floor(y1)-1 and columns floor(x0)..floor(x1)-1 of the image.
    """

    def __init__(
        self,
        detections: Detections,
        encoded: Encoded,
        image: int,
        output: tuple[int, int],
        head: MaskHead,
    ) -> None:
        self.head = head
        self.maps = encoded.mask_features[image]
        self.filters, self.boxes = detections.filters.float(), detections.boxes
        self.windows = _windows(detections.output_boxes.floor())
        self.size = (int(self.maps.shape[1]), int(self.maps.shape[2]))
        self.points = map_points(self.size, self.maps.device).view(*self.size, 2)
        inside, device = encoded.sizes[image], self.maps.device
        self._rows, self._columns = (
            map_to_output(self.size[axis], inside[axis], output[axis], device) for axis in (0, 1)
        )

    def rows(self, first: int, mask: Tensor, y: Tensor) -> AxisTaps:
        return self._rows[y]

    def columns(self, first: int, mask: Tensor, x: Tensor) -> AxisTaps:
        return self._columns[x]

    def support(self, rows: AxisTaps, columns: AxisTaps) -> tuple[Cells, Cells]:
        return rows.support(), columns.support()

    def part(self, mask: int, high: Cells, wide: Cells) -> Tensor:
        rows, columns, one = slice(*high), slice(*wide), slice(mask, mask + 1)
        cells = self.maps[:, rows, columns].flatten(1)
        points = self.points[rows, columns].flatten(0, 1)
        logits = self.head.logits(cells, points, self.filters[one], self.boxes[one])
        return logits.sigmoid().view(high[1] - high[0], wide[1] - wide[0]).cpu()

    def whole(self) -> Iterator[tuple[slice, Tensor]]:
        cells, points = self.maps.flatten(1), self.points.flatten(0, 1)
        at_once = max(1, CELLS // len(points))
        for start in range(0, len(self.windows), at_once):
            some = slice(start, start + at_once)
            logits = self.head.logits(cells, points, self.filters[some], self.boxes[some])
            yield some, logits.sigmoid().view(-1, *self.size)


class _Grids:
    """Filters on a grid over each box, slightly enlarged; a window is the pixels it covers."""

    def __init__(
        self,
        detections: Detections,
        encoded: Encoded,
        image: int,
        output: tuple[int, int],
        head: MaskHead,
    ) -> None:
        boxes, self.size = detections.boxes, head.config.grid_test
        which = torch.full((len(boxes),), image, device=boxes.device)
        logits = head.on_grid(encoded.mask_features, detections.filters, boxes, which, self.size)
        probs, areas = logits.float().sigmoid(), enlarge(boxes.float(), head.config.grid_margin)
        self.probs = probs.view(-1, self.size, self.size)
        if not together(boxes.device):
            self.probs, areas = self.probs.cpu(), areas.cpu()
        inside = encoded.sizes[image]
        self.x = areas[:, 0::2] * (output[1] / inside[1])
        self.y = areas[:, 1::2] * (output[0] / inside[0])
        low = torch.stack([self.x[:, 0], self.y[:, 0]], 1).floor()
        high = torch.stack([self.x[:, 1], self.y[:, 1]], 1).ceil()
        self.windows = _windows(clip(torch.cat([low, high], 1), output))

    def rows(self, first: int, mask: Tensor, y: Tensor) -> AxisTaps:
        low, high = self.y[first + mask].unbind(1)
        return grid_to_output(y, low, high, self.size)

    def columns(self, first: int, mask: Tensor, x: Tensor) -> AxisTaps:
        low, high = self.x[first + mask].unbind(1)
        return grid_to_output(x, low, high, self.size)

    def support(self, rows: AxisTaps, columns: AxisTaps) -> tuple[Cells, Cells]:
        return (0, self.size), (0, self.size)

    def part(self, mask: int, high: Cells, wide: Cells) -> Tensor:
        return self.probs[mask]

    def whole(self) -> Iterator[tuple[slice, Tensor]]:
        yield slice(0, len(self.windows)), self.probs


def _windows(boxes: Tensor) -> list[list[int]]:
    """(n, 4) whole xyxy to n times (y0, x0, height, width), known to the host from here on."""
    x0, y0, x1, y1 = boxes.long().unbind(1)
    found: list[list[int]] = torch.stack([y0, x0, y1 - y0, x1 - x0], 1).tolist()
    return found
