"""Do batches, targets and features refuse what does not fit together?"""

from __future__ import annotations

import dataclasses

import pytest
import torch

from diffinst.structures import Candidates, Encoded, ImageBatch, Pyramid, Targets, size_scale


def targets(count: int = 3) -> Targets:
    boxes = torch.arange(4.0 * count).view(count, 4)
    return Targets(boxes, torch.arange(count), torch.zeros(count, 5, 6, dtype=torch.bool), 42)


def test_scale_is_width_first() -> None:
    assert size_scale(((10, 20), (30, 40)), "cpu").tolist() == [
        [[20, 10, 20, 10]],
        [[40, 30, 40, 30]],
    ]
    assert size_scale((), "cpu").shape == (0, 1, 4)
    batch = ImageBatch(torch.zeros(1, 3, 32, 64), ((30, 50),))
    encoded = Encoded.for_masks(torch.zeros(1, 8, 8, 16), batch.sizes)
    assert batch.scale().tolist() == encoded.scale.tolist() == [[[50, 30, 50, 30]]]
    assert len(batch) == len(encoded) == 1


@pytest.mark.parametrize(
    ("shape", "sizes", "message"),
    [
        ((3, 32, 32), ((32, 32),), r"\(B, 3, H, W\), got \(3, 32, 32\)"),
        ((1, 4, 32, 32), ((32, 32),), "must be"),
        ((2, 3, 32, 32), ((32, 32),), "1 sizes for 2 images"),
        ((1, 3, 32, 32), ((33, 32),), r"\(33, 32\) does not lie inside"),
        ((1, 3, 32, 32), ((32, 0),), "does not lie inside"),
    ],
)
def test_batches_that_cannot_be(
    shape: tuple[int, ...], sizes: tuple[tuple[int, int], ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ImageBatch(torch.zeros(shape), sizes)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("boxes", torch.zeros(3, 5), r"boxes \(n, 4\)"),
        ("labels", torch.zeros(2), r"labels \(n,\)"),
        ("masks", torch.zeros(3, 5), r"masks \(n, h, w\)"),
        ("masks", torch.zeros(2, 5, 6), "2 masks for 3 boxes"),
    ],
)
def test_targets_that_disagree(field: str, value: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(targets(), **{field: value})  # type: ignore[arg-type]  # any field


def test_targets_are_picked_together() -> None:
    picked = targets()[torch.tensor([2, 0])]
    assert picked.labels.tolist() == [2, 0] and picked.boxes[0].tolist() == [8, 9, 10, 11]
    assert len(picked) == 2 and picked.masks.shape == (2, 5, 6) and picked.image_id == 42
    assert len(targets()[torch.tensor([False, True, False])]) == 1
    assert len(targets(0)) == 0 and len(targets()[torch.zeros(3, dtype=torch.bool)]) == 0


def test_moving_keeps_everything_else() -> None:
    moved = targets().to("meta")
    assert moved.boxes.device.type == moved.labels.device.type == moved.masks.device.type == "meta"
    assert moved.image_id == 42
    batch = ImageBatch(torch.zeros(1, 3, 32, 32), ((32, 30),)).to("meta")
    assert batch.pixels.device.type == "meta" and batch.sizes == ((32, 30),)


def test_structures_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        targets().boxes = torch.zeros(3, 4)  # type: ignore[misc]


def test_a_pyramid_is_its_maps_below_each_other() -> None:
    maps = [torch.rand(2, 3, 4, 6), torch.rand(2, 3, 2, 3)]
    pyramid = Pyramid.of(maps)
    assert pyramid.table.shape == (2, 30, 3)
    assert torch.equal(pyramid.table[1, 7], maps[0][1, :, 1, 1])  # row 1, column 1 of 6
    assert torch.equal(pyramid.table[0, 24 + 5], maps[1][0, :, 1, 2])
    assert [level.tolist() for level in pyramid.levels] == [[4, 2], [6, 3], [0, 24], [0.25, 0.125]]
    for found, wanted in zip(pyramid.maps, maps, strict=True):
        assert torch.equal(found, wanted)


def candidates(value: float, count: int) -> Candidates:
    numbers = torch.full((2, count), value)
    whole = numbers.long()
    return Candidates(
        numbers[..., None].expand(2, count, 4), numbers, whole, numbers[..., None], whole
    )


def test_candidates_of_steps_lie_side_by_side() -> None:
    both = Candidates.cat([candidates(1, 2), candidates(2, 3)])
    assert both.scores.tolist() == [[1, 1, 2, 2, 2]] * 2
    assert both.boxes.shape == (2, 5, 4) and both.filters.shape == (2, 5, 1)


def test_candidates_can_be_chosen_image_by_image() -> None:
    chosen = Candidates.where(torch.tensor([True, False]), candidates(1, 2), candidates(2, 2))
    assert chosen.scores.tolist() == [[1, 1], [2, 2]]
    assert chosen.boxes[:, 0].tolist() == [[1] * 4, [2] * 4]
    assert chosen.proposals.tolist() == [[1, 1], [2, 2]]
