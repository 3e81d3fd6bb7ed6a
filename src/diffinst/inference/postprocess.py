"""From scored candidates to instances in the image's own pixels; masks only in boxes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffinst.config import PostprocessConfig
from diffinst.inference.painting import grid_windows, map_windows
from diffinst.inference.sampler import Pool
from diffinst.models.network import DiffusionInstNetwork
from diffinst.ops.boxes import class_nms, clip
from diffinst.ops.filters import apply_filters, relative_coordinates
from diffinst.ops.masks import enlarge, grid_to_output, map_points, map_to_output
from diffinst.results.crops import CroppedMasks
from diffinst.results.instances import Instances
from diffinst.structures import Features

BLOCK = 4096  # columns of a window that are float at once


@dataclass(frozen=True)
class Detections:
    """What is kept of one image before masks are drawn, by descending score.

    Attributes:
        boxes: (n, 4) xyxy pixels of the network input, not clipped.
        scores: (n,) in [0, 1].
        labels: (n,) int64.
        filters: (n, d).
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    filters: Tensor

    def __getitem__(self, keep: Tensor) -> Detections:
        """Those at an index or mask tensor."""
        return Detections(
            self.boxes[keep], self.scores[keep], self.labels[keep], self.filters[keep]
        )


def select(pool: Pool, image: int, nms_iou: float) -> Detections:
    """One image's candidates after NMS within each class.

    Args:
        pool: Candidates of the batch.
        image: Index into the batch.
        nms_iou: IoU above which the worse of two boxes of a class goes.
    """
    boxes, scores = pool.boxes[image].float(), pool.scores[image]
    labels, filters = pool.labels[image], pool.filters[image]
    real = (scores >= 0) & boxes.isfinite().all(1)
    boxes, scores, labels, filters = boxes[real], scores[real], labels[real], filters[real]
    keep = class_nms(boxes, scores, labels, nms_iou)
    return Detections(boxes[keep], scores[keep], labels[keep], filters[keep])


def draw(
    detections: Detections,
    features: Features,
    image: int,
    output: tuple[int, int],
    network: DiffusionInstNetwork,
    config: PostprocessConfig,
) -> Instances:
    """Instances of one image.

    Args:
        detections: Candidates after NMS.
        features: The encoded batch.
        image: Index into the batch.
        output: (height, width) of the original image.
        network: Evaluates the filters.
        config: Threshold, number kept, mask threshold.
    """
    inside = features.sizes[image]
    ratio = detections.boxes.new_tensor([output[1] / inside[1], output[0] / inside[0]])
    boxes = clip(detections.boxes * ratio.repeat(2), output)
    real = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1) & (detections.scores >= config.threshold)
    keep = torch.nonzero(real)[: config.max_detections, 0]
    kept, boxes = detections[keep], boxes[keep]
    cut = _grid_masks if network.config.filters.evaluate == "grid" else _map_masks
    if at_once(boxes.device):
        cut = _painted
    masks = cut(kept, boxes, features, image, output, network, config.mask_threshold)
    return Instances(
        boxes=boxes.float().cpu(),
        scores=kept.scores.float().cpu(),
        labels=kept.labels.cpu(),
        mask_crops=masks,
        image_size=output,
        class_names=network.config.names,
    )


def at_once(device: torch.device) -> bool:
    """Whether all masks of an image are drawn together; on a CPU that takes ten times as long."""
    return device.type != "cpu"


def _painted(
    kept: Detections,
    boxes: Tensor,
    features: Features,
    image: int,
    output: tuple[int, int],
    network: DiffusionInstNetwork,
    threshold: float,
) -> CroppedMasks:
    """All masks together, where the features lie."""
    if network.config.filters.evaluate == "grid":
        windows, patches = grid_windows(
            kept.filters, kept.boxes, features, image, output, network, threshold
        )
    else:
        windows, patches = map_windows(
            kept.filters, kept.boxes, boxes, features, image, output, network, threshold
        )
    return _crops(windows, patches, output)


def _map_masks(
    kept: Detections,
    boxes: Tensor,
    features: Features,
    image: int,
    output: tuple[int, int],
    network: DiffusionInstNetwork,
    threshold: float,
) -> CroppedMasks:
    """Filters on the stride-4 cells that a window needs, resampled to it (the paper).

    A window is rows floor(y1)..floor(y2)-1 and columns floor(x1)..floor(x2)-1 of the output.
    """
    maps = features.mask_features[image]
    height, width = features.sizes[image]
    rows = map_to_output(maps.shape[1], height, output[0])
    columns = map_to_output(maps.shape[2], width, output[1])
    points = map_points((maps.shape[1], maps.shape[2]), maps.device).view(*maps.shape[1:], 2)
    windows, patches = [], []
    for i, (x1, y1, x2, y2) in enumerate(boxes.floor().long().tolist()):
        windows.append([y1, x1, y2 - y1, x2 - x1])
        if y2 <= y1 or x2 <= x1:
            patches.append(torch.zeros(y2 - y1, x2 - x1, dtype=torch.bool))
            continue
        high, wide = rows.support(y1, y2), columns.support(x1, x2)
        cells = maps[:, high[0] : high[1], wide[0] : wide[1]].flatten(1)
        if network.config.filters.coordinates:
            seen = points[high[0] : high[1], wide[0] : wide[1]].flatten(0, 1)
            relative = relative_coordinates(seen, kept.boxes[i : i + 1])[0].T
            cells = torch.cat([relative, cells])
        filters = kept.filters[i : i + 1].float()
        probs = apply_filters(cells, filters, network.layout).sigmoid()
        probs = probs.view(high[1] - high[0], wide[1] - wide[0]).cpu()
        patch = torch.empty(y2 - y1, x2 - x1, dtype=torch.bool)
        left = rows.matrix(y1, y2, high) @ probs
        for start in range(x1, x2, BLOCK):
            stop = min(start + BLOCK, x2)
            window = left @ columns.matrix(start, stop, wide).T
            patch[:, start - x1 : stop - x1] = window > threshold
        patches.append(patch)
    return _crops(windows, patches, output)


def _grid_masks(
    kept: Detections,
    boxes: Tensor,
    features: Features,
    image: int,
    output: tuple[int, int],
    network: DiffusionInstNetwork,
    threshold: float,
) -> CroppedMasks:
    """Filters on a grid over each box, slightly enlarged, resampled to the pixels it covers."""
    config = network.config.filters
    size = config.grid_test
    which = torch.full((len(boxes),), image, device=kept.boxes.device)
    logits, _ = network.grid_logits(features, kept.filters, kept.boxes, which, size)
    probs = logits.float().sigmoid().view(-1, size, size).cpu()
    inside = features.sizes[image]
    ratio = torch.tensor([output[1] / inside[1], output[0] / inside[0]]).repeat(2)
    areas = enlarge(kept.boxes.float().cpu(), config.grid_margin) * ratio
    pixels = torch.cat([areas[:, :2].floor(), areas[:, 2:].ceil()], dim=1)
    windows, patches = [], []
    for i, (x1, y1, x2, y2) in enumerate(clip(pixels, output).long().tolist()):
        windows.append([y1, x1, y2 - y1, x2 - x1])
        left, top, right, bottom = torch.split(areas[i], 1)
        rows = _grid_matrix(y1, y2, top, bottom, size)
        columns = _grid_matrix(x1, x2, left, right, size)
        patch = torch.empty(y2 - y1, x2 - x1, dtype=torch.bool)
        lines = rows @ probs[i]
        for start in range(0, x2 - x1, BLOCK):
            patch[:, start : start + BLOCK] = lines @ columns[start : start + BLOCK].T > threshold
        patches.append(patch)
    return _crops(windows, patches, output)


def _grid_matrix(start: int, stop: int, low: Tensor, high: Tensor, size: int) -> Tensor:
    """(stop - start, size) weights of grid cells over [low, high] at pixels; low, high: (1,)."""
    taps = grid_to_output(torch.arange(start, stop), low, high, size)
    return taps.matrix(0, stop - start, (0, size))


def _crops(
    windows: list[list[int]], patches: list[Tensor], output: tuple[int, int]
) -> CroppedMasks:
    return CroppedMasks(
        torch.tensor(windows, dtype=torch.int64).view(-1, 4), tuple(patches), output
    )
