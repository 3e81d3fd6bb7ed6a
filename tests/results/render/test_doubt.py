"""Are doubtful objects marked, in their colours, and the others left grey?"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffinst.results.crops import CroppedMasks
from diffinst.results.instances import Instances
from diffinst.results.render.doubt import DOUBTED, RARE, SURE, draw_doubt

COLUMNS = (5, 40, 72)


@pytest.fixture
def found() -> Instances:
    masks = torch.zeros(3, 40, 100, dtype=torch.bool)
    for mask, x in zip(masks, COLUMNS, strict=True):
        mask[18:32, x : x + 20] = True
    return Instances(
        boxes=torch.tensor([[x, 18.0, x + 20, 32.0] for x in COLUMNS]),
        scores=torch.tensor([0.9, 0.8, 0.7]),
        labels=torch.zeros(3, dtype=torch.int64),
        mask_crops=CroppedMasks.from_dense(masks),
        image_size=(40, 100),
        class_names=("cat",),
    )


def has(drawn: np.ndarray, color: tuple[int, int, int]) -> list[bool]:
    """Whether each third of a drawing has pixels of nearly that colour."""
    near = (np.abs(drawn.astype(int) - color) <= 12).all(-1)
    return [bool(part.any()) for part in np.array_split(near, 3, axis=1)]


def test_colours_say_how_many_runs_found_an_object(found: Instances) -> None:
    image = np.zeros((40, 100, 3), np.uint8)
    stability = torch.tensor([1.0, 0.75, 0.25])
    drawn = np.asarray(draw_doubt(image, found, stability, 8, width=400))
    assert drawn.shape == (160, 400, 3)
    assert has(drawn, SURE) == [True, False, False]
    assert has(drawn, DOUBTED) == [False, True, False]
    assert has(drawn, RARE) == [False, False, True]


def test_a_number_stays_inside_the_image(found: Instances) -> None:
    image = np.zeros((40, 100, 3), np.uint8)
    assert draw_doubt(image, found, torch.zeros(3), 8, width=50).size == (50, 20)


def test_nothing_found_is_the_image(found: Instances) -> None:
    image = np.full((40, 100, 3), 7, np.uint8)
    drawn = np.asarray(draw_doubt(image, found[[]], torch.zeros(0), 8, width=100))
    assert (drawn == 7).all()


def test_the_wrong_image_is_refused(found: Instances) -> None:
    with pytest.raises(ValueError, match="give that image"):
        draw_doubt(np.zeros((4, 4, 3), np.uint8), found, torch.zeros(3), 8, width=100)
