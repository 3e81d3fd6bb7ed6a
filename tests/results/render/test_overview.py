"""Is the small picture made of means of blocks, with outlines where the objects are?"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from diffinst.results.crops import CroppedMasks
from diffinst.results.instances import Instances
from diffinst.results.render.marks import PALETTE
from diffinst.results.render.overview import draw_outlines, shrunken


def test_blocks_become_their_means_whatever_windows_are_read() -> None:
    image = np.zeros((50, 30, 3), np.uint8)
    image[:10, :10] = 100
    image[0, 0] = 200  # one of the 25 pixels of its block
    small, factor = shrunken((50, 30), lambda y, x, h, w: image[y : y + h, x : x + w], side=10)
    assert (small.shape, factor) == ((10, 6, 3), 5)
    assert small[0, 0].tolist() == [104] * 3
    assert small[1, 1].tolist() == [100] * 3
    assert small[2:].max() == 0


def test_outlines_lie_around_the_objects_and_small_ones_are_dots() -> None:
    masks = CroppedMasks(
        torch.tensor([[40, 40, 40, 40], [10, 10, 4, 4]]),
        (torch.ones(40, 40, dtype=torch.bool), torch.ones(4, 4, dtype=torch.bool)),
        (100, 100),
    )
    labels, boxes = torch.tensor([0, 1]), torch.zeros(2, 4)
    found = Instances(boxes, torch.ones(2), labels, masks, (100, 100), ("a", "b"))
    canvas = Image.new("RGB", (50, 50))
    draw_outlines(canvas, [found], 0.5)
    pixels = np.asarray(canvas)
    assert tuple(pixels[20, 30]) == PALETTE[0]
    assert pixels[30, 30].max() == 0
    assert tuple(pixels[6, 6]) == PALETTE[1]
    assert np.count_nonzero((pixels == PALETTE[1]).all(2)) == 1
