"""From scored candidates to the detections of one image: suppression, threshold, the best ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffinst.config import Options
from diffinst.ops.boxes import class_nms, clip
from diffinst.structures import Candidates


@dataclass(frozen=True)
class Detections:
    """What is kept of one image before its masks are made, by descending score.

    Attributes:
        boxes: (n, 4) xyxy pixels of the network input, not clipped.
        output_boxes: (n, 4) xyxy pixels of the original image, clipped to it.
        scores: (n,) in [0, 1].
        labels: (n,) int64.
        filters: (n, d).
        proposals: (n,) int64, the row of each one's proposal in its step.
    """

    boxes: Tensor
    output_boxes: Tensor
    scores: Tensor
    labels: Tensor
    filters: Tensor
    proposals: Tensor


def select(
    candidates: Candidates,
    image: int,
    inside: tuple[int, int],
    output: tuple[int, int],
    options: Options,
) -> Detections:
    """One image's candidates after NMS within each class, those in sight and good enough.

    Args:
        candidates: Of the batch.
        image: Index into the batch.
        inside: (height, width) of the image in the network input.
        output: (height, width) of the original image.
        options: NMS, threshold, number kept.
    """
    boxes, scores = candidates.boxes[image].float(), candidates.scores[image]
    labels = candidates.labels[image]
    real = torch.nonzero((scores >= 0) & boxes.isfinite().all(1))[:, 0]
    kept = real[class_nms(boxes[real], scores[real], labels[real], options.nms_iou)]
    ratio = boxes.new_tensor([output[1] / inside[1], output[0] / inside[0]])
    output_boxes = clip(boxes[kept] * ratio.repeat(2), output)
    seen = ((output_boxes[:, 2:] - output_boxes[:, :2]) > 0).all(1)
    best = torch.nonzero(seen & (scores[kept] >= options.threshold))[: options.max_detections, 0]
    kept = kept[best]
    return Detections(
        boxes=boxes[kept],
        output_boxes=output_boxes[best],
        scores=scores[kept],
        labels=labels[kept],
        filters=candidates.filters[image][kept],
        proposals=candidates.proposals[image][kept],
    )
