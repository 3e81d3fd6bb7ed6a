"""Are prompts checked, and do they begin where they should?"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffinst.inference.prompts import Excluded, Numbers, Points, Prompt, prompts_of, starts_of

SIZE = (40, 60)
NONE = Excluded(torch.zeros(0, 2), torch.zeros(0, 4))
NAN = float("nan")


def test_boxes_come_first_and_clicks_are_grouped_by_depth() -> None:
    asked, excluded = prompts_of([[1, 2, 30, 20]], [[5, 6], [7, 8]], [[9, 9], [0, 0, 4, 4]], SIZE)
    assert asked[0].box is not None and asked[0].box.tolist() == [1, 2, 30, 20]
    assert [prompt.points.tolist() for prompt in asked[1:]] == [[[5, 6]], [[7, 8]]]
    assert excluded.points.tolist() == [[9, 9]] and excluded.boxes.tolist() == [[0, 0, 4, 4]]
    assert len(excluded) == 2
    grouped, _ = prompts_of(None, [[[5, 6], [7, 8]], [[1, 1]]], None, SIZE)
    assert [prompt.points.tolist() for prompt in grouped] == [[[5, 6], [7, 8]], [[1, 1]]]


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor, iter])
def test_any_numbers_do(kind: type) -> None:
    boxes, points = [[1.0, 2.0, 30.0, 20.0]], [[5.0, 6.0], [7.0, 8.0]]
    asked, _ = prompts_of(kind(boxes), kind(points), None, SIZE)
    assert len(asked) == 3 and asked[2].points.tolist() == [[7, 8]]


@pytest.mark.parametrize(
    ("boxes", "points", "exclude", "message"),
    [
        (None, None, None, "nothing is asked for; give boxes="),
        ([], [], [[1, 1]], "nothing is asked for"),
        ([[10, 10, 5, 20]], None, None, r"box 0 is \[10.0, 10.0, 5.0, 20.0\]; give x0, y0, x1, y1"),
        ([[1, 1, 5, 5], [60, 0, 80, 9]], None, None, "box 1 is .*, outside the image, which is 60"),
        ([[1, 1, NAN, 5]], None, None, r"box \[1.0, 1.0, nan, 5.0\]; give finite x0"),
        ([[1, 1, 5]], None, None, r"box: shape \(1, 3\); give x0, y0, x1, y1 for each"),
        (None, [[5, 41]], None, r"points of object 0: \[5.0, 41.0\] lies outside the image"),
        (None, [[[5, 5], [-1, 5]]], None, r"points of object 0: \[-1.0, 5.0\] lies outside"),
        (None, [[5, 5]], [[5, 5]], r"point \[5.0, 5.0\] is meant and excluded; omit it from one"),
        (None, [[5, 5]], [[5, 5, 1]], r"excluded is \[5, 5, 1\]; give x, y or x0"),
        (None, [["a", "b"]], None, "points of object 0: no numbers x, y"),
        (None, 5, None, r"points is 5; give \[\[x, y\], ...\]"),
        (None, [None], None, "points of object 0: no numbers x, y"),
        (5, None, None, "box: no numbers x0, y0, x1, y1"),
        (None, [[5, 5]], [35, 50], r"excluded is 35; give x, y or .* for each: \[\[x, y\], ...\]"),
        (None, [[5, 5]], [None], "excluded is None; give x, y"),
        (None, [[5, 5]], 5, r"exclude is 5; give \[\[x, y\], ...\]"),
    ],
)
def test_what_is_no_prompt_is_refused_in_a_line(
    boxes: Numbers | None,
    points: Points | None,
    exclude: list[list[float]] | None,
    message: str,
) -> None:
    with pytest.raises(ValueError, match=f"^prompt: .*{message}") as caught:
        prompts_of(boxes, points, exclude, SIZE)
    assert "\n" not in str(caught.value)


def test_a_box_partly_outside_is_taken_as_it_is() -> None:
    asked, _ = prompts_of([[-5, -5, 10, 10]], None, None, SIZE)
    assert asked[0].box is not None and asked[0].box.tolist() == [-5, -5, 10, 10]


def test_a_box_starts_as_it_is_smaller_and_larger() -> None:
    prompt = Prompt(torch.tensor([10.0, 10, 30, 50]), torch.zeros(0, 2))
    starts = starts_of(prompt, NONE, [5.0], 100.0)
    assert starts[0].tolist() == [10, 10, 30, 50]
    assert starts[1].tolist() == [12.5, 15, 27.5, 45]  # 0.75 of 20 x 40 around (20, 30)
    assert len(starts) == 3


def test_sides_are_cut_to_what_the_model_begins_with() -> None:
    prompt = Prompt(torch.tensor([0.0, 10, 100, 30]), torch.zeros(0, 2))
    starts = starts_of(prompt, NONE, [5.0], 60.0)
    assert starts[0].tolist() == [20, 10, 80, 30]  # 60 wide around the same centre


def test_clicks_start_in_usual_sizes_or_around_them_all() -> None:
    one = Prompt(None, torch.tensor([[10.0, 20.0]]))
    assert starts_of(one, NONE, [4.0, 8.0], 100.0).tolist() == [[8, 18, 12, 22], [6, 16, 14, 24]]
    two = Prompt(None, torch.tensor([[10.0, 20.0], [30.0, 20.0]]))
    (start,) = starts_of(two, NONE, [4.0], 100.0)
    assert start.tolist() == [7, 18, 33, 22]  # 1.3 times 20 wide, 4 high


def test_a_start_moves_away_from_what_is_excluded() -> None:
    excluded = Excluded(torch.tensor([[16.0, 20.0], [90.0, 90.0]]), torch.zeros(0, 4))
    near, away = starts_of(Prompt(None, torch.tensor([[10.0, 20.0]])), excluded, [8.0], 100.0)
    assert near.tolist() == [6, 16, 14, 24]
    assert away.tolist() == [4, 16, 12, 24]  # a quarter of 8 further from (16, 20)
