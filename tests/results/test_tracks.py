"""Are tracked results told to other tools in their own forms?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from diffinst.results.crops import CroppedMasks
from diffinst.results.instances import Instances
from diffinst.results.tracks import CellTracks, VideoTracks, ids_of, joined, mot_lines

SIZE = (20, 60)


def frame(
    numbers: Sequence[int], lefts: Sequence[int], labels: Sequence[int] | None = None
) -> Instances:
    """10 x 10 squares at the top, scores 0.9, 0.8, ..."""
    masks = torch.zeros(len(numbers), *SIZE, dtype=torch.bool)
    for mask, x in zip(masks, lefts, strict=True):
        mask[:10, x : x + 10] = True
    crops = CroppedMasks.from_dense(masks)
    return Instances(
        boxes=crops.tight_boxes(),
        scores=0.9 - 0.1 * torch.arange(len(numbers)).float(),
        labels=torch.tensor(labels or [0] * len(numbers)).long(),
        mask_crops=crops,
        image_size=SIZE,
        class_names=("cell", "dust"),
        ids=torch.tensor(numbers).long(),
    )


def test_mot_lines_count_from_one() -> None:
    assert mot_lines(0, frame([7, 2], [5, 30])) == [
        "1,7,5,0,10,10,0.9000,-1,-1,-1",
        "1,2,30,0,10,10,0.8000,-1,-1,-1",
    ]
    assert mot_lines(3, frame([], [])) == []


def test_a_video_track_has_a_mask_or_null_for_each_frame() -> None:
    tracks = VideoTracks()
    tracks.add(0, frame([7], [5], labels=[1]))
    tracks.add(2, frame([2, 7], [30, 6], labels=[0, 1]))
    first, second = tracks.results(4)
    assert (first["id"], first["category_id"], second["id"], second["category_id"]) == (2, 1, 7, 2)
    masks = second["segmentations"]
    assert isinstance(masks, list) and [mask is None for mask in masks] == [False, True] * 2
    assert second["score"] == pytest.approx(0.85)


def test_a_cell_that_was_missed_goes_on_as_its_own_child() -> None:
    cells = CellTracks()
    maps = [
        cells.label_map(0, frame([7, 2], [5, 30])),
        cells.label_map(1, frame([2], [30])),
        cells.label_map(2, frame([2, 7], [30, 5])),
    ]
    assert sorted(cells.lines()) == ["1 0 2 0", "2 0 0 0", "3 2 2 2"]
    assert [(int(m[0, 30]), int(m[0, 5])) for m in maps] == [(1, 2), (1, 0), (1, 3)]


def test_a_label_under_others_is_not_announced_where_it_is_not_seen() -> None:
    cells = CellTracks()
    cells.label_map(0, frame([1], [5]))
    hidden = cells.label_map(1, frame([2, 1], [5, 5]))
    cells.label_map(2, frame([2, 1], [5, 30]))
    assert set(hidden.ravel().tolist()) == {0, 2}
    assert sorted(cells.lines()) == ["1 0 0 0", "2 1 2 0", "3 2 2 1"]


def test_results_without_ids_are_refused() -> None:
    with pytest.raises(ValueError, match="has no ids; it comes from `track`"):
        ids_of(replace(frame([], []), ids=None))


def test_lines_end() -> None:
    assert joined(["a", "b"]) == "a\nb\n" and joined([]) == ""
