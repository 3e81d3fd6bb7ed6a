"""Is one object picked of the answers to a box and to clicks?"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
import torch

from diffinst import DiffusionInst
from diffinst.adapters.meant import meant
from diffinst.inference.image import EncodedImage


@pytest.fixture(scope="module")
def image(tiny: DiffusionInst) -> EncodedImage:
    return tiny.encode(np.arange(48 * 64 * 3).reshape(48, 64, 3).astype(np.uint8))


def grid() -> Iterator[tuple[float, float]]:
    """Corners from which boxes of 24 x 20 stay inside."""
    yield from product(range(0, 40, 8), range(0, 28, 7))


def test_a_box_alone_is_the_prompt(image: EncodedImage) -> None:
    counts = []
    for x, y in grid():
        found = meant(image, [x + 24, y + 20, x, y])  # its corners in any order
        asked = image.prompt(boxes=[[x, y, x + 24, y + 20]])
        asked = asked[asked.scores > 0]  # untrained weights leave many a box without an answer
        assert torch.equal(found.scores, asked.scores) and found.mask_crops == asked.mask_crops
        counts.append(len(found))
    assert 1 in counts


def test_of_two_answers_the_one_that_holds_the_clicks_is_taken(image: EncodedImage) -> None:
    seen = 0
    for x, y in grid():
        box, click = [x, y, x + 24, y + 20], [63 - int(x), 47 - int(y)]
        both = image.prompt(boxes=[box], points=[[click]])
        both = both[both.scores > 0]
        if len(both) == 2:
            held = [bool(mask[click[1], click[0]]) for mask in both.masks]
            best = max((0, 1), key=list(zip(held, both.scores.tolist(), strict=True)).__getitem__)
            assert meant(image, box, [click]).mask_crops == both[best].mask_crops
            seen += 1
    assert seen


def test_what_leaves_the_image_is_cut_to_it(image: EncodedImage) -> None:
    found = meant(image, [-5, -5, 90, 90], [[64, 48]], [[-1, 3]])
    assert len(found) <= 1 and found.image_size == (48, 64)
    with pytest.raises(ValueError, match="nothing is asked for"):
        meant(image)
