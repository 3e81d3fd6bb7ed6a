"""Do pixels, boxes and masks move together, and are steps drawn as the paper says?"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from diffinst.config import AugmentConfig
from diffinst.training.transforms import (
    Crop,
    Flip,
    MaskMap,
    Resize,
    Step,
    Transpose,
    draw_steps,
    jitter_colour,
)

RAMP = torch.arange(12, dtype=torch.uint8).view(3, 4)  # 0 1 2 3 / 4 5 6 7 / 8 9 10 11
BOX = torch.tensor([[1.0, 0, 3, 1]])  # pixels 1 and 2
SIZE = (3, 4)


@pytest.mark.parametrize(
    ("step", "pixels", "box"),
    [
        (Flip(-1), [[3, 2, 1, 0], [7, 6, 5, 4], [11, 10, 9, 8]], [1, 0, 3, 1]),
        (Flip(-2), [[8, 9, 10, 11], [4, 5, 6, 7], [0, 1, 2, 3]], [1, 2, 3, 3]),
        (Transpose(), [[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11]], [0, 1, 1, 3]),
        (Crop(0, 2, 2, 2), [[2, 3], [6, 7]], [0, 0, 1, 1]),
        (Crop(1, 0, 2, 3), [[4, 5, 6], [8, 9, 10]], [1, 0, 3, 0]),  # nothing of the box is left
    ],
)
def test_each_step_on_a_ramp(step: Step, pixels: list[list[int]], box: list[float]) -> None:
    assert step.pixels(RAMP.expand(3, 3, 4))[1].tolist() == pixels
    assert step.size(SIZE) == (len(pixels), len(pixels[0]))
    assert step.boxes(BOX, SIZE).tolist() == [box]
    assert BOX.tolist() == [[1, 0, 3, 1]]  # the caller's boxes stay


def test_resize_by_hand() -> None:
    step = Resize((6, 2))
    assert step.size(SIZE) == (6, 2)
    assert step.boxes(BOX, SIZE).tolist() == [[0.5, 0, 1.5, 2]]
    flat = torch.full((3, 3, 4), 7, dtype=torch.uint8)
    resized = step.pixels(flat)
    assert resized.dtype == torch.uint8 and resized.tolist() == [[[7, 7]] * 6] * 3
    rows, columns = step.axes(torch.arange(3), torch.arange(4))
    # new column 0 has its centre at 0.5 * 2 = 1, which lies in old column 1
    assert rows.tolist() == [0, 0, 1, 1, 2, 2] and columns.tolist() == [1, 3]


def test_enlarging_repeats_mask_pixels_and_interpolates_colours() -> None:
    mask = np.array([[True, False]])
    enlarged = MaskMap.of((1, 2), [Resize((2, 4))])(mask)
    assert enlarged is not None and enlarged.int().tolist() == [[1, 1, 0, 0]] * 2
    pixels = torch.tensor([[[0, 100]]], dtype=torch.uint8).expand(3, 1, 2)
    # centres of new pixels at -0.25, 0.25, 0.75, 1.25 of the old
    assert Resize((1, 4)).pixels(pixels)[0].tolist() == [[0, 25, 75, 100]]


def test_no_boxes() -> None:
    for step in (Flip(-1), Flip(-2), Transpose(), Crop(0, 0, 2, 2), Resize((5, 5))):
        assert step.boxes(torch.zeros(0, 4), SIZE).shape == (0, 4)


def test_masks_that_are_cut_off_or_empty_are_none() -> None:
    mask = np.zeros(SIZE, dtype=bool)
    assert MaskMap.of(SIZE, [Flip(-1)])(mask) is None
    mask[0, 0] = True
    assert MaskMap.of(SIZE, [Crop(1, 1, 2, 2)])(mask) is None
    mask[2, 2] = True  # row 0 and column 2 stay occupied, the pixel they share never was
    assert MaskMap.of(SIZE, [Crop(0, 1, 2, 3)])(mask) is None
    kept = MaskMap.of(SIZE, [])(mask)
    assert kept is not None and np.array_equal(kept.numpy(), mask)


@st.composite
def chains(draw: st.DrawFn, *, exact: bool) -> tuple[tuple[int, int], list[Step]]:
    """A size and steps that fit each other; `exact`: enlarging by whole numbers only."""
    first = size = (draw(st.integers(1, 9)), draw(st.integers(1, 9)))
    steps: list[Step] = []
    kinds_of_steps = st.sampled_from(["flip", "transpose", "crop", "resize"])
    for kind in draw(st.lists(kinds_of_steps, max_size=5)):
        step: Step
        if kind == "flip":
            step = Flip(draw(st.sampled_from([-1, -2])))
        elif kind == "transpose":
            step = Transpose()
        elif kind == "crop":
            top, left = draw(st.integers(0, size[0] - 1)), draw(st.integers(0, size[1] - 1))
            height, width = (draw(st.integers(1, s)) for s in (size[0] - top, size[1] - left))
            step = Crop(top, left, height, width)
        elif exact:
            step = Resize((size[0] * draw(st.integers(1, 2)), size[1] * draw(st.integers(1, 3))))
        else:
            step = Resize((draw(st.integers(1, 20)), draw(st.integers(1, 20))))
        steps.append(step)
        size = step.size(size)
    return first, steps


def nearest(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Each new pixel is the old one under its centre."""
    rows = [int((i + 0.5) * mask.shape[0] / size[0]) for i in range(size[0])]
    columns = [int((i + 0.5) * mask.shape[1] / size[1]) for i in range(size[1])]
    return mask[rows][:, columns]


@given(chains(exact=False), st.integers(0, 2**31), st.floats(0, 1))
def test_a_mask_map_is_its_steps_one_after_the_other(
    chain: tuple[tuple[int, int], list[Step]], seed: int, share: float
) -> None:
    size, steps = chain
    mask = dense = np.random.default_rng(seed).random(size) < share
    for step in steps:
        if isinstance(step, Resize):
            dense = nearest(dense, step.to)
        else:
            dense = step.pixels(torch.from_numpy(dense)).numpy()
    mapped = MaskMap.of(size, steps)(mask)
    assert (mapped is None) == (not dense.any())
    if mapped is not None:
        assert np.array_equal(mapped.numpy(), dense)


def tight(mask: Tensor) -> list[int]:
    """xyxy of a mask that is not empty."""
    rows, columns = (torch.nonzero(mask.any(axis))[:, 0].tolist() for axis in (1, 0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


@given(chains(exact=True), st.data())
def test_the_tight_box_of_a_mask_is_the_transformed_box(
    chain: tuple[tuple[int, int], list[Step]], data: st.DataObject
) -> None:
    size, steps = chain
    y1, x1 = (data.draw(st.integers(0, side - 1)) for side in size)
    y2, x2 = data.draw(st.integers(y1 + 1, size[0])), data.draw(st.integers(x1 + 1, size[1]))
    mask = np.zeros(size, dtype=bool)
    mask[y1:y2, x1:x2] = True
    boxes = torch.tensor([[x1, y1, x2, y2]], dtype=torch.float32)
    mapped, final = MaskMap.of(size, steps)(mask), size
    for step in steps:
        boxes, final = step.boxes(boxes, final), step.size(final)
    empty = bool((boxes[0, 2:] <= boxes[0, :2]).any())
    assert (mapped is None) == empty
    if mapped is not None:
        assert tuple(mapped.shape) == final
        assert tight(mapped) == boxes[0].tolist()


def kinds(steps: list[Step]) -> list[str]:
    return [type(step).__name__ for step in steps]


PAPER = AugmentConfig()


def test_the_paper_flips_then_perhaps_crops_then_resizes() -> None:
    seen: dict[tuple[str, ...], int] = {}
    for seed in range(400):
        steps = draw_steps((480, 640), PAPER, np.random.default_rng(seed))
        names = kinds(steps)
        seen[tuple(names)] = seen.get(tuple(names), 0) + 1
        size = (480, 640)
        for step in steps[:-1]:
            if isinstance(step, Resize):
                assert min(step.to) in (400, 500, 600)
                assert step.to[1] == pytest.approx(step.to[0] * 4 / 3, abs=1)
            if isinstance(step, Crop):
                low, high = 384, 600
                assert min(low, size[0]) <= step.height <= min(high, size[0])
                assert min(low, size[1]) <= step.width <= min(high, size[1])
                assert 0 <= step.top <= size[0] - step.height
                assert 0 <= step.left <= size[1] - step.width
            size = step.size(size)
        last = steps[-1]
        assert isinstance(last, Resize) and max(last.to) <= 1333
        if max(last.to) < 1333:
            assert min(last.to) in range(480, 801, 32)
    resize, crop, flip = "Resize", "Crop", "Flip"
    orders = {(resize,), (flip, resize), (resize, crop, resize), (flip, resize, crop, resize)}
    assert seen.keys() == orders
    assert all(60 < count < 140 for count in seen.values())  # a quarter of 400 each


def test_the_long_side_is_limited() -> None:
    config = AugmentConfig(flip=0, crop_probability=0)
    (step,) = draw_steps((100, 1000), config, np.random.default_rng(0))
    assert step == Resize((133, 1333))


def test_all_eight_orientations() -> None:
    config = AugmentConfig(vertical_flip=0.5, transpose=0.5, crop_probability=0, short_sides=())
    image = torch.arange(6).view(2, 3)
    seen = set()
    for seed in range(200):
        turned = image
        for step in draw_steps((2, 3), config, np.random.default_rng(seed)):
            turned = step.pixels(turned)
        seen.add(str(turned.tolist()))
    assert len(seen) == 8


def test_zoom_instead_of_short_sides() -> None:
    config = AugmentConfig(flip=0, crop_probability=1, crop_short_sides=(), short_sides=())
    config = config.model_copy(update={"zoom": (0.5, 2.0), "crop_range": (64, 64)})
    sides = []
    for seed in range(100):
        steps = draw_steps((100, 200), config, np.random.default_rng(seed))
        assert kinds(steps) == ["Resize", "Crop"]
        assert steps[0].size((0, 0))[0] * 2 == pytest.approx(steps[0].size((0, 0))[1], abs=1)
        sides.append(steps[0].size((0, 0))[0])
        assert steps[1].size((0, 0))[1] == 64
    assert 50 <= min(sides) < 60 and 170 < max(sides) <= 200
    assert 35 < sum(side < 100 for side in sides) < 65  # as often smaller as larger


def test_the_same_generator_state_gives_the_same_steps() -> None:
    first, again = (draw_steps((480, 640), PAPER, np.random.default_rng(5)) for _ in range(2))
    assert first == again


def test_colour_jitter_keeps_type_and_can_be_off() -> None:
    pixels = torch.randint(256, (3, 4, 5), dtype=torch.uint8)
    assert jitter_colour(pixels, 0.0, np.random.default_rng(0)) is pixels
    changed = jitter_colour(pixels, 0.5, np.random.default_rng(0))
    assert changed.dtype == torch.uint8 and changed.shape == pixels.shape
    assert not torch.equal(changed, pixels)
    again = jitter_colour(pixels, 0.5, np.random.default_rng(0))
    assert torch.equal(changed, again)
