"""What the tests of drawing share: an image, and instances to lay over it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from diffinst.results.crops import CroppedMasks
from diffinst.results.instances import Instances

SIZE = (80, 120)


@pytest.fixture
def scene() -> np.ndarray:
    """A grey ramp: uint8 (80, 120, 3), values 60 to 149."""
    ramp = np.arange(SIZE[0] * SIZE[1] * 3, dtype=np.int64) % 90 + 60
    return ramp.astype(np.uint8).reshape(*SIZE, 3)


@pytest.fixture
def rectangles() -> Callable[..., Instances]:
    """Makes instances whose masks are the boxes (x0, y0, x1, y1) given; scores fall from 0.9."""

    def make(*corners: tuple[int, int, int, int]) -> Instances:
        masks = torch.zeros(len(corners), *SIZE, dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(masks, corners, strict=True):
            mask[y0:y1, x0:x1] = True
        return Instances(
            boxes=torch.tensor(corners, dtype=torch.float32).reshape(-1, 4),
            scores=0.9 - 0.01 * torch.arange(len(corners), dtype=torch.float32),
            labels=torch.zeros(len(corners), dtype=torch.int64),
            mask_crops=CroppedMasks.from_dense(masks),
            image_size=SIZE,
            class_names=("cat",),
        )

    return make
