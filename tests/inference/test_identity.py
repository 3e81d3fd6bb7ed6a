"""Who is who: made-up squares that move, vanish, come back and meet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from diffinst.inference.identity import Identities, assigned, mask_iou
from diffinst.results.crops import CroppedMasks
from diffinst.results.instances import Instances

SIZE = (60, 100)
SURE = 0.5


def squares(
    corners: Sequence[tuple[int, int]],
    scores: Sequence[float] | None = None,
    labels: Sequence[int] | None = None,
) -> Instances:
    """Instances whose masks are 10 x 10 squares at (x, y)."""
    masks = torch.zeros(len(corners), *SIZE, dtype=torch.bool)
    for mask, (x, y) in zip(masks, corners, strict=True):
        mask[y : y + 10, x : x + 10] = True
    return Instances(
        boxes=torch.tensor([[x, y, x + 10, y + 10] for x, y in corners]).float().reshape(-1, 4),
        scores=torch.tensor(scores or [0.9] * len(corners)).float(),
        labels=torch.tensor(labels or [0] * len(corners)).long(),
        mask_crops=CroppedMasks.from_dense(masks),
        image_size=SIZE,
        class_names=("cell", "dust"),
    )


def ids(who: Identities, *frame: tuple[int, int], **fields: Sequence[float]) -> list[int]:
    """The ids that squares of a frame get."""
    result = who.take(squares(frame, **fields), SURE)  # type: ignore[arg-type]
    assert result.ids is not None
    return list(result.ids.tolist())


def test_ids_start_at_one_and_go_with_their_objects() -> None:
    who = Identities(patience=3)
    assert ids(who, (0, 0), (50, 0)) == [1, 2]
    assert ids(who, (52, 0), (2, 0)) == [2, 1]  # in another order
    assert ids(who, (4, 0), (54, 0), (80, 40)) == [1, 2, 3]


@pytest.mark.parametrize(("missed", "expected"), [(3, 1), (4, 2)])
def test_an_id_survives_as_many_missed_frames_as_patience_says(missed: int, expected: int) -> None:
    who = Identities(patience=3)
    ids(who, (20, 20))
    for _ in range(missed):
        assert ids(who) == []
    assert ids(who, (20, 20)) == [expected]


def test_what_moves_on_while_it_is_missed_is_found_again() -> None:
    """4 pixels a frame: after two missed frames it is 12 on, and squares of 10 do not touch."""
    who = Identities(patience=3)
    for x in (0, 4, 8, 12):
        assert ids(who, (x, 0)) == [1]
    assert ids(who) == [] and ids(who) == []
    assert np.allclose(who.expected(), [[24, 0, 34, 10]])
    assert ids(who, (24, 0)) == [1]


def test_what_was_seen_once_is_expected_to_move_as_the_others_do() -> None:
    who = Identities(patience=0)
    ids(who, (0, 0), (30, 0))
    ids(who, (6, 0), (36, 0), (60, 30))
    assert np.allclose(who.shifts(), [[6, 0]] * 3)


def test_an_id_is_never_given_twice() -> None:
    who = Identities(patience=0)
    assert ids(who, (0, 0)) == [1]
    assert ids(who) == []
    assert ids(who, (0, 0)) == [2]
    who.forget()
    assert ids(who, (0, 0)) == [3]


def test_weak_ones_keep_their_id_and_begin_none() -> None:
    who = Identities(patience=0)
    assert ids(who, (0, 0), (50, 0), scores=[0.9, 0.3]) == [1]
    assert ids(who, (1, 0), (50, 0), scores=[0.3, 0.3]) == [1]


def test_a_sure_one_is_assigned_before_a_weak_one() -> None:
    who = Identities(patience=3)
    ids(who, (20, 20))
    result = who.take(squares([(20, 20), (24, 20)], scores=[0.4, 0.9]), SURE)
    assert result.boxes[:, 0].tolist() == [24] and result.ids is not None
    assert result.ids.tolist() == [1]


def test_classes_are_kept_apart() -> None:
    who = Identities(patience=3)
    assert ids(who, (0, 0), labels=[0]) == [1]
    assert ids(who, (0, 0), labels=[1]) == [2]


def test_where_the_carried_box_ended_decides_between_two_that_overlap_alike() -> None:
    """One object moved by half its width to the left or to the right? Its proposal knows."""
    for end, expected in ((15, 0), (25, 1)):
        who = Identities(patience=3)
        ids(who, (20, 20))
        reached = np.array([[end, 20, end + 10, 30]], np.float32)
        result = who.take(squares([(15, 20), (25, 20)]), SURE, reached)
        assert result.ids is not None and result.ids.tolist()[expected] == 1


def test_the_assignment_is_the_best_for_all() -> None:
    """One by one the first would take the better of two and leave nothing to the second."""
    likeness = np.array([[0.6, 0.5], [0.5, 0.1]], np.float32)
    assert assigned(likeness) == [(0, 1), (1, 0)]
    assert assigned(likeness, least=0.55) == [(0, 0)]
    assert assigned(np.zeros((0, 3), np.float32)) == []


def test_overlaps_by_hand() -> None:
    """Squares of 10: moved by (5, 0) they share 50 of 150 pixels."""
    a = list(squares([(0, 0), (40, 40)]).mask_crops.placed())
    b = list(squares([(5, 0)]).mask_crops.placed())
    assert np.allclose(mask_iou(a, b), np.array([[1 / 3], [0.0]]))
    assert np.allclose(mask_iou(a, b, np.array([[5, 0], [0, 0]])), np.array([[1.0], [0.0]]))
    assert mask_iou(a, []).shape == (2, 0) and mask_iou([], b).shape == (0, 1)


def test_parts_that_leave_the_image_count() -> None:
    """A square moved half out: 50 of its pixels are left of the image, nothing is there."""
    a = list(squares([(0, 0)]).mask_crops.placed())
    b = list(squares([(0, 0)]).mask_crops.placed())
    assert np.allclose(mask_iou(a, b, np.array([[-5, 0]])), [[1 / 3]])


def test_nothing_found_and_nothing_followed() -> None:
    who = Identities(patience=3)
    assert ids(who) == [] and who.expected().shape == (0, 4)
