"""Is one object picked of the answers to a box and to clicks?"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffinst import DiffusionInst
from diffinst.adapters.meant import meant
from diffinst.inference.image import EncodedImage


@pytest.fixture(scope="module")
def image(tiny: DiffusionInst) -> EncodedImage:
    return tiny.encode(np.arange(48 * 64 * 3).reshape(48, 64, 3).astype(np.uint8))


def test_a_box_alone_is_the_prompt(image: EncodedImage) -> None:
    found, asked = meant(image, [48, 36, 16, 12]), image.prompt(boxes=[[16, 12, 48, 36]])
    assert len(found) == 1  # corners in any order
    assert torch.equal(found.scores, asked.scores) and found.mask_crops == asked.mask_crops


def test_of_two_answers_the_one_that_holds_the_clicks_is_taken(image: EncodedImage) -> None:
    box, click = [[16, 12, 48, 36]], [50, 40]
    both = image.prompt(boxes=box, points=[[click]])
    held = [bool(mask[click[1], click[0]]) for mask in both.masks]
    best = max((0, 1), key=lambda i: (held[i], float(both.scores[i])))
    assert meant(image, box[0], [click]).mask_crops == both[best].mask_crops


def test_what_leaves_the_image_is_cut_to_it(image: EncodedImage) -> None:
    found = meant(image, [-5, -5, 90, 90], [[64, 48]], [[-1, 3]])
    assert len(found) <= 1 and found.image_size == (48, 64)
    with pytest.raises(ValueError, match="nothing is asked for"):
        meant(image)
