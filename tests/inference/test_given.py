"""Do given objects stay as they are, and is the rest found around them?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from diffinst.inference.given import around, inside_of
from diffinst.inference.predictor import DiffusionInst
from diffinst.results.crops import CroppedMasks
from diffinst.results.instances import Instances


def squares(*places: tuple[int, int, int, int], score: float = 0.5) -> Instances:
    masks = torch.zeros(len(places), 20, 40, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, places, strict=True):
        mask[y0:y1, x0:x1] = True
    crops = CroppedMasks.from_dense(masks)
    count = len(places)
    labels = torch.zeros(count, dtype=torch.int64)
    return Instances(
        crops.tight_boxes(), torch.full((count,), score), labels, crops, (20, 40), ("a",)
    )


def test_what_lies_inside_by_hand() -> None:
    small, large, apart = (2, 2, 6, 6), (0, 0, 10, 10), (20, 0, 30, 10)
    half = (5, 0, 15, 10)
    shared = inside_of(squares(large, apart), squares(small, half, apart))
    assert shared.tolist() == [[1.0, 0.5, 0.0], [0.0, 0.0, 1.0]]
    assert inside_of(squares(small), squares(large)).tolist() == [[0.16]]
    assert inside_of(squares(), squares(small)).shape == (0, 1)


def test_what_contains_a_small_given_object_is_another_one() -> None:
    tie, person = squares((4, 4, 6, 8)), squares((0, 0, 12, 20), score=0.9)
    assert len(around(tie, person)) == 2
    assert len(around(person, tie)) == 1


def test_known_objects_are_dropped_and_given_ones_come_first_unchanged() -> None:
    given = squares((0, 0, 10, 10), score=0.1)
    found = squares((1, 1, 11, 11), (20, 0, 30, 10), score=0.9)
    both = around(given, found)
    assert both[0] == given and both[1] == found[1] and len(both) == 2
    assert around(given, squares()) == given
    assert around(squares(), found) == found
    tracked = replace(given, ids=torch.tensor([4]))
    assert around(tracked, found).ids is None


def test_an_image_is_predicted_around_what_is_given() -> None:
    model = DiffusionInst.from_preset("tiny")
    image = model.encode(np.zeros((20, 40, 3), np.uint8))
    names = model.class_names
    plain = image.predict(threshold=0.0, proposals=8)
    given = replace(squares((0, 0, 40, 20)), class_names=names)
    assert image.predict(given=given, threshold=0.0, proposals=8)[0] == given
    small = replace(squares((0, 0, 2, 2)), class_names=names)
    found = image.predict(given=small, threshold=0.0, proposals=8)
    kept = [one for one in plain if inside_of(small, one)[0, 0] < 0.5]
    assert found == Instances.cat([small, *kept])


def test_objects_of_another_image_or_model_are_refused() -> None:
    image = DiffusionInst.from_preset("tiny").encode(np.zeros((20, 30, 3), np.uint8))
    with pytest.raises(ValueError, match=r"given: objects on an image of \(20, 40\)"):
        image.predict(given=squares((0, 0, 4, 4)))
    image = DiffusionInst.from_preset("tiny").encode(np.zeros((20, 40, 3), np.uint8))
    with pytest.raises(ValueError, match="given: objects of classes a, but the model has"):
        image.predict(given=squares((0, 0, 4, 4)))
    with pytest.raises(ValueError, match="given: a list; give Instances, as `predict` returns"):
        image.predict(given=[squares((0, 0, 4, 4))])  # type: ignore[arg-type]
