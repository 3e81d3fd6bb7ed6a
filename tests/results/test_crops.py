"""Cropped masks say the same as the full-size masks they stand for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from diffinst.datasets.problems import DatasetError
from diffinst.results.convert import from_rle
from diffinst.results.crops import CroppedMasks, resolve_index


def hand_worked() -> CroppedMasks:
    """Three masks on a 5x5 image: an L of 3 pixels, nothing, and the lower right pixel."""
    return CroppedMasks(
        windows=torch.tensor([[1, 2, 2, 3], [0, 0, 0, 4], [3, 3, 2, 2]]),
        patches=(
            torch.tensor([[1, 0, 0], [1, 1, 0]], dtype=torch.bool),
            torch.zeros(0, 4, dtype=torch.bool),
            torch.tensor([[0, 0], [0, 1]], dtype=torch.bool),
        ),
        image_size=(5, 5),
    )


@st.composite
def cropped_masks(draw: st.DrawFn) -> CroppedMasks:
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    windows, patches = [], []
    for _ in range(draw(st.integers(0, 4))):
        if draw(st.booleans()):
            y0, x0, h, w = 0, 0, height, width
        else:
            y0, x0 = draw(st.integers(0, height)), draw(st.integers(0, width))
            h, w = draw(st.integers(0, height - y0)), draw(st.integers(0, width - x0))
        fill = draw(st.sampled_from(["zeros", "ones", "random"]))
        bits = {"zeros": [0] * (h * w), "ones": [1] * (h * w)}.get(fill)
        if bits is None:
            bits = draw(st.lists(st.integers(0, 1), min_size=h * w, max_size=h * w))
        windows.append([y0, x0, h, w])
        patches.append(torch.tensor(bits, dtype=torch.bool).reshape(h, w))
    return CroppedMasks(
        torch.tensor(windows, dtype=torch.int64).reshape(-1, 4), tuple(patches), (height, width)
    )


def test_dense_has_each_patch_at_its_window() -> None:
    dense = hand_worked().dense()
    assert dense.shape == (3, 5, 5)
    assert dense.dtype == torch.bool
    assert dense[0].nonzero().tolist() == [[1, 2], [2, 2], [2, 3]]
    assert dense[1].nonzero().tolist() == []
    assert dense[2].nonzero().tolist() == [[4, 4]]


def test_area_counts_pixels() -> None:
    area = hand_worked().area()
    assert area.tolist() == [3, 0, 1]
    assert area.dtype == torch.int64


def test_tight_boxes_end_at_the_far_edge_of_the_last_pixel() -> None:
    boxes = hand_worked().tight_boxes()
    assert boxes.dtype == torch.float32
    assert boxes.tolist() == [[2, 1, 4, 3], [0, 0, 0, 0], [4, 4, 5, 5]]


def test_tight_boxes_of_empty_masks_may_be_given() -> None:
    given = torch.tensor([[9.0, 9, 9, 9], [1, 2, 3, 4.5], [9, 9, 9, 9]])
    boxes = hand_worked().tight_boxes(empty=given)
    assert boxes.tolist() == [[2, 1, 4, 3], [1, 2, 3, 4.5], [4, 4, 5, 5]]
    assert given[0].tolist() == [9, 9, 9, 9]


def test_rle_of_the_hand_worked_masks() -> None:
    # Down the columns: 2 columns of 5 and one pixel = 11 zeros, 2 ones, 4 zeros to (2, 3), 1 one,
    # 7 zeros. COCO writes the first three as they are and each later one as the difference to the
    # count two before: 11, 2, 4, 1 - 2, 7 - 4; one character each, 48 + (value modulo 32).
    rles = hand_worked().to_rle()
    assert rles[0] == {"size": [5, 5], "counts": "".join(chr(48 + c) for c in (11, 2, 4, 31, 3))}
    assert coco_mask.area(rles).tolist() == [3, 0, 1]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
@settings(max_examples=200, deadline=None)
@given(cropped_masks())
def test_rle_is_what_pycocotools_makes_of_the_dense_masks(masks: CroppedMasks) -> None:
    dense = masks.dense().numpy()
    for mask, rle in zip(dense, masks.to_rle(), strict=True):
        assert np.array_equal(coco_mask.decode(rle).astype(bool), mask)
        canonical = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert rle["counts"] == canonical["counts"].decode()


@settings(max_examples=100, deadline=None)
@given(cropped_masks())
def test_from_dense_of_dense_is_the_same_masks(masks: CroppedMasks) -> None:
    again = CroppedMasks.from_dense(masks.dense())
    assert torch.equal(again.dense(), masks.dense())
    assert again == masks
    assert torch.equal(again.area(), masks.dense().sum(dim=(1, 2)))


@settings(max_examples=100, deadline=None)
@given(cropped_masks())
def test_tight_boxes_are_those_of_pycocotools(masks: CroppedMasks) -> None:
    for box, rle in zip(masks.tight_boxes().tolist(), masks.to_rle(), strict=True):
        x, y, w, h = coco_mask.toBbox(rle).tolist()
        assert box == [x, y, x + w, y + h]


@settings(max_examples=200, deadline=None)
@given(cropped_masks())
def test_run_lengths_are_read_again_as_the_same_masks(masks: CroppedMasks) -> None:
    rles = masks.to_rle()
    again = from_rle(rles, masks.image_size)
    assert torch.equal(again.dense(), masks.dense())
    assert torch.equal(again.windows, CroppedMasks.from_dense(masks.dense()).windows)  # tight


def test_run_lengths_of_no_length_or_of_another_image_are_told_apart() -> None:
    # 0 that are not there, 2 that are, 0 that are not, 1 that is, 1 that is not.
    (patch,) = from_rle([{"size": [2, 2], "counts": "020O1"}], (2, 2)).patches
    assert patch.tolist() == [[True, True], [True, False]]
    nothing = from_rle([{"size": [2, 2], "counts": "400"}], (2, 2))  # 4 that are not, 0 that are
    assert nothing.windows.tolist() == [[0, 0, 0, 0]]
    with pytest.raises(DatasetError, match="cover 3 pixels, the image has 2 x 2 = 4"):
        from_rle([{"size": [2, 2], "counts": "12"}], (2, 2))


def test_from_dense_windows_are_tight_and_own_their_memory() -> None:
    dense = torch.zeros(2, 40, 50, dtype=torch.bool)
    dense[0, 10:12, 20:25] = True
    masks = CroppedMasks.from_dense(dense)
    assert masks.windows.tolist() == [[10, 20, 2, 5], [0, 0, 0, 0]]
    assert masks.patches[0].untyped_storage().nbytes() == 10


@pytest.mark.parametrize(
    ("index", "picked"),
    [
        (0, [0]),
        (-1, [2]),
        (slice(1, None), [1, 2]),
        (slice(None, None, -1), [2, 1, 0]),
        (torch.tensor([True, False, True]), [0, 2]),
        (np.array([False, False, True]), [2]),
        (torch.tensor([2, -3]), [2, 0]),
        (torch.tensor(1), [1]),
        ([1, 1], [1, 1]),
        ([], []),
    ],
)
def test_every_way_to_pick_gives_cropped_masks(index: object, picked: list[int]) -> None:
    masks = hand_worked()
    assert torch.equal(masks[index].dense(), masks.dense()[picked])  # type: ignore[index]


@pytest.mark.parametrize(
    ("index", "error"),
    [
        (3, IndexError),
        (-4, IndexError),
        ([True, False], IndexError),
        (torch.tensor([0.5]), TypeError),
        (torch.zeros(1, 1, dtype=torch.int64), TypeError),
    ],
)
def test_a_wrong_index_is_refused(index: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        resolve_index(index, 3)  # type: ignore[arg-type]


def test_cat_keeps_the_order() -> None:
    masks = hand_worked()
    assert CroppedMasks.cat([masks[2], masks[:2]]) == masks[[2, 0, 1]]


def test_cat_refuses_nothing_and_other_images() -> None:
    other = CroppedMasks.from_dense(torch.zeros(1, 4, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match="same image"):
        CroppedMasks.cat([hand_worked(), other])
    with pytest.raises(ValueError, match="at least one"):
        CroppedMasks.cat([])


def test_no_instances_pass_through_everything() -> None:
    none = CroppedMasks.from_dense(torch.zeros(0, 4, 6, dtype=torch.bool))
    assert len(none) == 0
    assert none.image_size == (4, 6)
    assert none.dense().shape == (0, 4, 6)
    assert none.area().shape == (0,)
    assert none.area().dtype == torch.int64
    assert none.tight_boxes().shape == (0, 4)
    assert none.tight_boxes().dtype == torch.float32
    assert none.to_rle() == []
    assert none[:] == none == CroppedMasks.cat([none, none]).to("cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_another_device_holds_the_same_masks() -> None:
    moved = hand_worked().to("cuda")
    assert {patch.device.type for patch in moved.patches} == {moved.windows.device.type} == {"cuda"}
    assert moved == hand_worked()
    assert torch.equal(moved.dense().cpu(), hand_worked().dense())
    assert moved[torch.tensor([2, 0], device="cuda")].area().tolist() == [1, 3]


def test_other_masks_are_not_equal() -> None:
    masks = hand_worked()
    assert masks != masks[[0, 2, 1]]
    assert masks != "masks"


@pytest.mark.parametrize(
    ("windows", "patch", "image_size", "message"),
    [
        ([[0, 0, 2, 2]], torch.ones(2, 3, dtype=torch.bool), (5, 5), r"shape \(2, 2\)"),
        ([[0, 0, 2, 2]], torch.ones(2, 2), (5, 5), "torch.bool"),
        ([[4, 0, 2, 2]], torch.ones(2, 2, dtype=torch.bool), (5, 5), "leaves the image"),
        ([[0, -1, 2, 2]], torch.ones(2, 2, dtype=torch.bool), (5, 5), "leaves the image"),
        ([[0, 0, 2, 2]] * 2, torch.ones(2, 2, dtype=torch.bool), (5, 5), r"\(1, 4\)"),
        ([[0, 0, 0, 0]], torch.ones(0, 0, dtype=torch.bool), (0, 5), "at least 1"),
    ],
)
def test_fields_that_do_not_fit_are_refused(
    windows: list[list[int]], patch: torch.Tensor, image_size: tuple[int, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        CroppedMasks(torch.tensor(windows), (patch,), image_size)
