"""Masks of one image drawn where its features lie: nothing is done once an instance.

What `postprocess` does in a loop on a CPU, for devices that would wait between the turns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffinst.models.network import DiffusionInstNetwork
from diffinst.ops.boxes import clip
from diffinst.ops.filters import apply_filters, relative_coordinates
from diffinst.ops.masks import AxisTaps, enlarge, grid_to_output, map_points, map_to_output
from diffinst.ops.paint import paint
from diffinst.structures import Features

CELLS = 2**22  # of maps evaluated at once; eight numbers each


def map_windows(
    filters: Tensor,
    inside: Tensor,
    boxes: Tensor,
    features: Features,
    image: int,
    output: tuple[int, int],
    network: DiffusionInstNetwork,
    threshold: float,
) -> tuple[list[list[int]], list[Tensor]]:
    """Filters on all of F_mask, resampled to the window of each box.

    Args:
        filters: (n, d).
        inside: (n, 4) xyxy pixels of the network input.
        boxes: (n, 4) the same in pixels of the image, clipped to it.
        features: The encoded batch.
        image: Index into the batch.
        output: (height, width) of the image.
        network: Evaluates the filters.
        threshold: Of probabilities.

    Returns:
        Windows (y0, x0, height, width) in pixels of the image and patches on the CPU.
    """
    maps = features.mask_features[image]
    size, real = (int(maps.shape[1]), int(maps.shape[2])), features.sizes[image]
    taps = [map_to_output(size[axis], real[axis], output[axis], maps.device) for axis in range(2)]
    windows = _windows(boxes.floor())
    points = map_points(size, maps.device)
    at_once = max(1, CELLS // len(points))
    patches: list[Tensor] = []
    for start in range(0, len(windows), at_once):
        some = slice(start, start + at_once)
        cells = maps.flatten(1)
        if network.config.filters.coordinates:
            seen = relative_coordinates(points, inside[some]).transpose(1, 2)
            cells = torch.cat([seen, cells.expand(len(seen), -1, -1)], 1)
        probs = apply_filters(cells, filters[some].float(), network.layout).sigmoid()
        patches += paint(
            probs.view(-1, *size),
            windows[some],
            lambda _, y: AxisTaps(taps[0].index[y], taps[0].weight[y]),
            lambda _, x: AxisTaps(taps[1].index[x], taps[1].weight[x]),
            threshold,
        )
    return windows, patches


def grid_windows(
    filters: Tensor,
    inside: Tensor,
    features: Features,
    image: int,
    output: tuple[int, int],
    network: DiffusionInstNetwork,
    threshold: float,
) -> tuple[list[list[int]], list[Tensor]]:
    """Filters on a grid over each box, resampled to the pixels it covers; as `map_windows`."""
    config, real = network.config.filters, features.sizes[image]
    size = config.grid_test
    which = torch.full((len(inside),), image, device=inside.device)
    logits, _ = network.grid_logits(features, filters, inside, which, size)
    probs = logits.float().sigmoid().view(-1, size, size)
    areas = enlarge(inside.float(), config.grid_margin)
    x, y = areas[:, 0::2] * (output[1] / real[1]), areas[:, 1::2] * (output[0] / real[0])
    pixels = torch.stack([x[:, 0].floor(), y[:, 0].floor(), x[:, 1].ceil(), y[:, 1].ceil()], 1)
    windows = _windows(clip(pixels, output))
    patches = paint(
        probs,
        windows,
        lambda i, row: grid_to_output(row, y[i, 0], y[i, 1], size),
        lambda i, column: grid_to_output(column, x[i, 0], x[i, 1], size),
        threshold,
    )
    return windows, patches


def _windows(pixels: Tensor) -> list[list[int]]:
    """(n, 4) whole xyxy to n times (y0, x0, height, width), known to the host from here on."""
    x1, y1, x2, y2 = pixels.long().unbind(1)
    found: list[list[int]] = torch.stack([y1, x1, y2 - y1, x2 - x1], 1).tolist()
    return found
