"""Between a prediction and the objects that a session keeps."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from diffinst.results.convert import from_rle
from diffinst.results.instances import Instances
from diffinst.serve.work import Object

SAME = 0.5  # IoU from which on two masks are one object


def objects_of(found: Instances) -> list[Object]:
    """The instances in their order, with id 0: not numbered yet."""
    boxes, scores = found.boxes.tolist(), found.scores.tolist()
    labels, areas = found.labels.tolist(), found.mask_crops.area().tolist()
    rated = [None] * len(boxes) if found.stability is None else found.stability.tolist()
    return [
        Object(0, label, score, [round(v, 2) for v in box], area, rle, stability=stability)
        for box, score, label, area, rle, stability in zip(
            boxes, scores, labels, areas, found.mask_crops.to_rle(), rated, strict=True
        )
    ]


def instances_of(
    objects: Sequence[Object], size: tuple[int, int], names: tuple[str, ...]
) -> Instances:
    """The same as a result.

    Args:
        objects: Of one image.
        size: Its (height, width).
        names: The classes.
    """
    if not objects:
        return Instances.empty(size, names)
    return Instances(
        boxes=torch.tensor([one.box for one in objects], dtype=torch.float32),
        scores=torch.tensor([one.score for one in objects], dtype=torch.float32),
        labels=torch.tensor([one.label for one in objects]),
        mask_crops=from_rle([one.rle for one in objects], size),
        image_size=size,
        class_names=names,
    )
