"""Small results that several tests of this folder look at."""

from __future__ import annotations

import torch

from diffinst.results.crops import CroppedMasks
from diffinst.results.instances import Instances


def scene() -> Instances:
    """Three instances on a 4x6 image; the first two masks share the pixel (1, 2)."""
    masks = torch.zeros(3, 4, 6, dtype=torch.bool)
    masks[0, 1:3, 1:3] = True
    masks[1, 0:2, 2:5] = True
    masks[2, 3, 5] = True
    return Instances(
        boxes=torch.tensor([[1.0, 1, 3, 3], [2, 0, 5, 2], [4.5, 2.5, 6, 4]]),
        scores=torch.tensor([0.5, 0.75, 0.25]),
        labels=torch.tensor([0, 1, 1]),
        mask_crops=CroppedMasks.from_dense(masks),
        image_size=(4, 6),
        class_names=("cat", "dog"),
    )


def dot(score: float = 0.9) -> Instances:
    """One pixel, all of its image."""
    masks = CroppedMasks.from_dense(torch.ones(1, 1, 1, dtype=torch.bool))
    return Instances(
        masks.tight_boxes(), torch.tensor([score]), torch.tensor([0]), masks, (1, 1), ("cat",)
    )
