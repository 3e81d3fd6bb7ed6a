"""From scored candidates to the detections of one image: suppression, threshold, the best ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from diffinst.config import Options
from diffinst.ops.boxes import class_nms, clip
from diffinst.structures import Candidates

Quality: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""From boxes (n, 4), pixels of the network input, and filters (n, d) to how good masks are (n,)."""


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

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, which: Tensor) -> Detections:
        """Those at some places, (m,) int64."""
        return Detections(*(getattr(self, field.name)[which] for field in fields(self)))

    @classmethod
    def cat(cls, parts: Sequence[Detections]) -> Detections:
        """All of one image, in the order given."""
        names = [field.name for field in fields(cls)]
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def select(
    candidates: Candidates,
    image: int,
    inside: tuple[int, int],
    output: tuple[int, int],
    options: Options,
    quality: Quality | None = None,
) -> Detections:
    """One image's candidates after NMS within each class, those in sight and good enough.

    Args:
        candidates: Of the batch.
        image: Index into the batch.
        inside: (height, width) of the image in the network input.
        output: (height, width) of the original image.
        options: NMS, threshold, number kept, weight of the masks' quality.
        quality: Rates masks; needed where that weight is not 0.
    """
    boxes, scores = candidates.boxes[image].float(), candidates.scores[image]
    labels = candidates.labels[image]
    real = torch.nonzero((scores >= 0) & boxes.isfinite().all(1))[:, 0]
    kept = real[class_nms(boxes[real], scores[real], labels[real], options.nms_iou)]
    ratio = boxes.new_tensor([output[1] / inside[1], output[0] / inside[0]])
    output_boxes = clip(boxes[kept] * ratio.repeat(2), output)
    seen = ((output_boxes[:, 2:] - output_boxes[:, :2]) > 0).all(1)
    kept, output_boxes = kept[seen], output_boxes[seen]
    final, filters = scores[kept], candidates.filters[image]
    if options.mask_quality:
        assert quality is not None
        final = with_quality(final, quality(boxes[kept], filters[kept]), options.mask_quality)
    final, order = final.sort(descending=True, stable=True)
    order = order[final >= options.threshold][: options.max_detections]
    kept = kept[order]
    return Detections(
        boxes=boxes[kept],
        output_boxes=output_boxes[order],
        scores=final[: len(order)],
        labels=labels[kept],
        filters=filters[kept],
        proposals=candidates.proposals[image][kept],
    )


def with_quality(
    scores: Float[Tensor, "n"], quality: Float[Tensor, "n"], weight: float
) -> Float[Tensor, "n"]:
    """The geometric mean of class probability (weight 1) and mask quality (`weight`); (n,) each."""
    return (scores * quality.to(scores) ** weight) ** (1 / (1 + weight))
