"""Is one object picked of the answers to a box and to clicks?"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest

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
        assert found == asked
        counts.append(len(found))
    assert 1 in counts


def test_what_leaves_the_image_is_cut_to_it(image: EncodedImage) -> None:
    found = meant(image, [-5, -5, 90, 90], [[64, 48]], [[-1, 3]])
    assert len(found) <= 1 and found.image_size == (48, 64)
    with pytest.raises(ValueError, match="nothing is asked for"):
        meant(image)
