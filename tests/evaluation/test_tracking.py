"""Scores of tracks, counted by hand on squares."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch

from diffinst.evaluation.tracking import (
    TrackedMask,
    TrackingScores,
    frames_of_coco,
    track_scores,
)
from diffinst.results.crops import CroppedMasks

Square = tuple[int, int]  # id, left side of a 10 x 10 square


def frame(*squares: Square, ignore: bool = False) -> list[TrackedMask]:
    masks = torch.zeros(len(squares), 10, 200, dtype=torch.bool)
    for mask, (_, x) in zip(masks, squares, strict=True):
        mask[:, x : x + 10] = True
    rles = CroppedMasks.from_dense(masks).to_rle()
    return [TrackedMask(n, rle, ignore) for (n, _), rle in zip(squares, rles, strict=True)]


TRUTH = [frame((1, 0), (2, 50)), frame((1, 20), (2, 70)), frame((1, 40), (2, 90))]


def parts(scores: TrackingScores) -> Sequence[float]:
    return scores.hota, scores.deta, scores.assa, scores.idf1, scores.mota


def test_the_truth_is_perfect_whatever_its_numbers() -> None:
    renamed = [frame((7, 0), (3, 50)), frame((7, 20), (3, 70)), frame((7, 40), (3, 90))]
    scores = track_scores(TRUTH, renamed)
    assert parts(scores) == (1, 1, 1, 1, 1)
    assert (scores.switches, scores.false, scores.missed) == (0, 0, 0)


def test_an_identity_that_switches() -> None:
    """Object 1 is called 1, 3, 3: of six detections five keep the best assignment, IDF1 = 5/6.

    MOTA = 1 - 1/6. AssA: detections of object 2 count 1 each; object 1 shares 1 of 3 with track 1
    and 2 of 3 with track 3, so (3 + 1/3 + 2 * 2/3) / 6 = 7/9; HOTA is the root of it times 1.
    """
    scores = track_scores(TRUTH, [TRUTH[0], frame((3, 20), (2, 70)), frame((3, 40), (2, 90))])
    assert math.isclose(scores.idf1, 5 / 6) and math.isclose(scores.mota, 5 / 6)
    assert math.isclose(scores.assa, 7 / 9) and scores.deta == 1
    assert math.isclose(scores.hota, math.sqrt(7 / 9)) and scores.switches == 1


def test_missed_and_wrong_ones() -> None:
    """Object 2 missed on two frames, a wrong one on the last: 4 right, 2 missed, 1 wrong."""
    scores = track_scores(TRUTH, [TRUTH[0], frame((1, 20)), frame((1, 40), (9, 150))])
    assert (scores.switches, scores.false, scores.missed) == (0, 1, 2)
    assert math.isclose(scores.mota, 1 - 3 / 6)
    assert math.isclose(scores.idf1, 2 * 4 / (6 + 5))


def test_masks_have_to_overlap_by_half() -> None:
    """Moved by 3 of 10 they share 7 of 13; by 4, 6 of 14."""
    truth = [frame((1, 0))]
    assert track_scores(truth, [frame((1, 3))]).idf1 == 1
    assert track_scores(truth, [frame((1, 4))]).idf1 == 0


def test_what_is_to_be_ignored_is_neither_missed_nor_wrong() -> None:
    truth = [[*frame((1, 0)), *frame((2, 50), ignore=True)]]
    for found in ([frame((1, 0))], [frame((1, 0), (2, 50))], [frame((1, 0), (2, 53))]):
        assert parts(track_scores(truth, found)) == (1, 1, 1, 1, 1)
    assert track_scores(truth, [frame((1, 0), (2, 100))]).false == 1


def test_nothing_at_all() -> None:
    assert parts(track_scores([[], []], [[], []])) == (1, 1, 1, 1, 1)
    assert track_scores([[]], [frame((1, 0))]).false == 1
    assert parts(track_scores(TRUTH, [[], [], []])) == (0, 0, 0, 0, 0)


def test_what_cannot_be_compared_is_said() -> None:
    with pytest.raises(ValueError, match="2 frames were tracked, the truth has 3"):
        track_scores(TRUTH, TRUTH[:2])
    with pytest.raises(ValueError, match="frame 0 of the tracks has an id twice"):
        track_scores([[]], [frame((1, 0), (1, 50))])


def test_coco_entries_become_frames() -> None:
    (one,) = frame((4, 0))
    entry = {"image_id": 7, "track_id": 4, "segmentation": one.mask}
    assert frames_of_coco([entry], [3, 7]) == [[], [one]]
    assert frames_of_coco([{**entry, "iscrowd": 1}], [7])[0][0].ignore
    for wrong, said in (
        ({"image_id": 8}, "image_id is 8"),
        ({"track_id": None}, "has no track_id"),
        ({"segmentation": [[0, 0, 1, 1, 0, 1]]}, "no compressed run lengths"),
    ):
        with pytest.raises(ValueError, match=said):
            frames_of_coco([{**entry, **wrong}], [3, 7])
