"""Does each prompt get its own object, and no object two prompts that do not mean it?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from diffinst.inference import answers as answers_module
from diffinst.inference.answers import Answers, candidates, chosen, covered
from diffinst.inference.predictor import DiffusionInst
from diffinst.inference.prompts import NOTHING
from diffinst.results.crops import CroppedMasks
from diffinst.results.instances import Instances


def squares(*places: tuple[int, int, int, int]) -> Instances:
    """Full boxes as masks, x0, y0, x1, y1, scores 0.9, 0.8, ..."""
    masks = torch.zeros(len(places), 20, 40, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, places, strict=True):
        mask[y0:y1, x0:x1] = True
    crops = CroppedMasks.from_dense(masks)
    scores = torch.tensor([0.9 - 0.1 * i for i in range(len(places))])
    labels = torch.zeros(len(places), dtype=torch.int64)
    return Instances(crops.tight_boxes(), scores, labels, crops, (20, 40), ("a",))


LEFT, RIGHT = (0, 0, 10, 10), (20, 0, 30, 10)


def test_the_best_own_answer_is_chosen_in_the_prompts_order() -> None:
    given = Answers(
        squares(LEFT, RIGHT, RIGHT, LEFT),
        prompt=np.array([0, 0, 1, 1]),
        value=np.array([0.2, 0.8, 0.1, 0.6]),
        agreement=np.array([[0.0, 1, 1, 0], [1, 0, 0, 1]]),
    )
    found = chosen(given)
    assert found.boxes.tolist() == [list(RIGHT), list(LEFT)]
    assert found.scores.tolist() == pytest.approx([0.8, 0.6])


def test_an_object_that_another_prompt_means_gives_way_to_the_next_answer() -> None:
    given = Answers(
        squares(LEFT, LEFT, RIGHT),
        prompt=np.array([0, 1, 1]),
        value=np.array([0.9, 0.8, 0.1]),
        agreement=np.array([[1.0, 1, 0], [0.2, 0.2, 0.4]]),
    )
    found = chosen(given)
    assert found.boxes.tolist() == [list(LEFT), list(RIGHT)]
    assert found.scores.min() > 0


def test_two_prompts_that_both_mean_an_object_both_get_it() -> None:
    given = Answers(
        squares(LEFT, LEFT, RIGHT),
        prompt=np.array([0, 1, 1]),
        value=np.array([0.9, 0.8, 0.1]),
        agreement=np.array([[1.0, 1, 0], [0.7, 0.7, 0.4]]),
    )
    assert chosen(given).boxes.tolist() == [list(LEFT), list(LEFT)]


def test_a_prompt_without_an_object_of_its_own_has_a_score_of_0() -> None:
    given = Answers(
        squares(LEFT, LEFT),
        prompt=np.array([0, 1]),
        value=np.array([0.9, 0.8]),
        agreement=np.array([[1.0, 1], [0.1, 0.1]]),
    )
    assert chosen(given).scores.tolist() == pytest.approx([0.9, 0.0])


def test_a_lost_prompt_takes_nothing_from_others_and_one_beside_everything_is_lost() -> None:
    given = Answers(
        squares(LEFT, RIGHT, RIGHT),
        prompt=np.array([0, 1, 2]),
        value=np.array([0.9, 0.5, 0.4]),
        agreement=np.array([[1.0, 0, 0], [0, NOTHING, NOTHING], [0, 0.6, 0.6]]),
    )
    found = chosen(given)  # the second agrees with nothing, so the third keeps its object
    assert found.scores.tolist() == pytest.approx([0.9, 0.0, 0.7])
    assert found.boxes[2].tolist() == list(RIGHT)


def test_candidates_differ_and_come_best_first() -> None:
    near = (0, 0, 10, 9)  # IoU 0.9 with LEFT
    given = Answers(
        squares(LEFT, near, RIGHT, RIGHT),
        prompt=np.array([0, 0, 0, 1]),
        value=np.array([0.5, 0.6, 0.1, 0.7]),
        agreement=np.ones((2, 4)),
    )
    first, second = candidates(given, most=3)
    assert first.boxes.tolist() == [list(near), list(RIGHT)]
    assert second.boxes.tolist() == [list(RIGHT)]
    assert len(candidates(given, most=1)[0]) == 1


def test_points_are_counted_on_each_mask() -> None:
    points = torch.tensor([[0.0, 0.0], [9.9, 9.9], [10.0, 5.0], [40.0, 20.0]])
    masks = squares(LEFT, RIGHT, (0, 0, 40, 20)).mask_crops
    assert covered([points], masks).tolist() == [[0.5, 0.0, 1.0]]
    groups = [points[:0], points[:1], points[1:]]
    assert covered(groups, masks).tolist() == [[0, 0, 0], [1, 0, 1], [1 / 3, 0, 1]]
    assert covered([points], squares().mask_crops).tolist() == [[]]


def test_points_of_many_prompts_are_counted_as_one_by_one() -> None:
    rng = np.random.default_rng(0)
    dense = torch.from_numpy(rng.random((12, 20, 40)) < 0.4)
    dense[3:, :, :9] = False
    dense[5] = False
    groups = [torch.from_numpy(rng.uniform(0, (40, 20), (p, 2))) for p in (1, 3, 7, 2, 1)]
    plain = []
    for points in groups:
        places = [(int(y), int(x)) for x, y in points.tolist()]
        plain.append([sum(bool(mask[at]) for at in places) / len(places) for mask in dense])
    assert covered(groups, CroppedMasks.from_dense(dense)).tolist() == plain


def test_an_empty_mask_has_a_score_of_0() -> None:
    given = Answers(
        squares(LEFT, (5, 5, 5, 5)),
        prompt=np.array([0, 1]),
        value=np.array([0.9, 0.8]),
        agreement=np.array([[1.0, 0], [0, 0.9]]),
    )
    assert chosen(given).scores.tolist() == pytest.approx([0.9, 0.0])


@pytest.mark.parametrize(
    "exclude", [[[30.0, 30.0]], [[30.0, 30.0], [150.0, 5.0]], [[0.0, 0.0, 160.0, 120.0]]]
)
def test_an_object_that_is_excluded_is_nobodys(
    nuclei: tuple[Path, list[tuple[int, int, int, int]]], exclude: list[list[float]]
) -> None:
    path, boxes = nuclei  # the first disc is about (26, 30)
    image = DiffusionInst.from_pretrained("nano-nuclei").encode(path)
    assert image.prompt(points=[[25, 31]]).scores.min() > 0.5
    assert image.prompt(boxes[:1], [[25, 31]], exclude).scores.tolist() == [0, 0]


@pytest.fixture(scope="module")
def nuclei(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, list[tuple[int, int, int, int]]]:
    """Six bright discs on a dark ground, and their boxes."""
    image = Image.fromarray(np.random.default_rng(0).integers(5, 20, (120, 160, 3), np.uint8))
    boxes = [(x, y, x + 22, y + 20) for y in (20, 70) for x in (15, 65, 115)]
    for box in boxes:
        ImageDraw.Draw(image).ellipse(box, fill=(170, 170, 170))
    path = tmp_path_factory.mktemp("nuclei") / "a.png"
    image.save(path)
    return path, boxes


def iou(found: Instances, boxes: list[tuple[int, int, int, int]]) -> list[float]:
    tight = found.tight().boxes
    inside = torch.minimum(tight[:, 2:], torch.tensor(boxes)[:, 2:]) - torch.maximum(
        tight[:, :2], torch.tensor(boxes)[:, :2]
    )
    both = inside.clamp(min=0).prod(1)
    areas = (tight[:, 2:] - tight[:, :2]).prod(1)
    theirs = torch.tensor([float((x1 - x0) * (y1 - y0)) for x0, y0, x1, y1 in boxes])
    values: list[float] = (both / (areas + theirs - both)).tolist()
    return values


def test_drawn_boxes_and_clicks_get_their_objects(
    nuclei: tuple[Path, list[tuple[int, int, int, int]]],
) -> None:
    path, boxes = nuclei
    image = DiffusionInst.from_pretrained("nano-nuclei").encode(path)
    drawn = [[x0 + 4, y0 - 3, x1 + 6, y1 + 2] for x0, y0, x1, y1 in boxes]
    points = [[(x0 + x1) / 2 - 3, (y0 + y1) / 2 + 2] for x0, y0, x1, y1 in boxes]
    together = image.prompt(boxes=drawn, points=points[::-1])
    assert min(iou(together, boxes + boxes[::-1])) > 0.8
    assert together.path == path and together.scores.min() > 0.5
    for i in (0, 5):  # alone as well
        assert min(iou(image.prompt(points=[points[i]]), [boxes[i]])) > 0.8
    two_clicks = [[points[2], [points[2][0] + 4, points[2][1]]]]
    assert min(iou(image.prompt(points=two_clicks), [boxes[2]])) > 0.8
    again = image.prompt(boxes=drawn, points=points[::-1])
    assert again == together


def test_an_excluded_click_leads_to_another_answer(
    nuclei: tuple[Path, list[tuple[int, int, int, int]]],
) -> None:
    path, boxes = nuclei
    image = DiffusionInst.from_pretrained("nano-nuclei").encode(path)
    between = [[51.0, 30.0]]  # nearer to the second disc's left edge than to the first's right one
    (x0, y0, x1, y1), (u0, v0, u1, v1) = boxes[:2]
    first, second = [(x0 + x1) / 2, (y0 + y1) / 2], [(u0 + u1) / 2, (v0 + v1) / 2]
    for excluded in (first, second):
        found = image.prompt(points=between, exclude=[excluded])
        assert covered([torch.tensor([excluded])], found.mask_crops).tolist() == [[0.0]]


def test_a_click_on_the_ground_finds_nothing(
    nuclei: tuple[Path, list[tuple[int, int, int, int]]],
) -> None:
    image = DiffusionInst.from_pretrained("nano-nuclei").encode(nuclei[0])
    clicks = [[51.0, 5.0], [100.0, 110.0]]
    found = image.prompt(points=clicks)
    pairs = zip(clicks, found, strict=True)
    on = [covered([torch.tensor([click])], one.mask_crops)[0, 0] for click, one in pairs]
    assert [bool(score > 0) for score in found.scores] == [bool(value) for value in on]
    assert 0.0 in on


def test_more_prompts_than_fit_into_a_pass_are_answered_in_order(
    nuclei: tuple[Path, list[tuple[int, int, int, int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, boxes = nuclei
    image = DiffusionInst.from_pretrained("nano-nuclei").encode(path)
    monkeypatch.setattr(answers_module, "AT_ONCE", 4)
    assert min(iou(image.prompt(boxes=boxes), boxes)) > 0.8


def test_a_model_without_size_knowledge_and_two_classes_answers_too() -> None:
    model = DiffusionInst.from_preset("tiny")
    image = model.encode(np.zeros((48, 64, 3), np.uint8))
    found = image.prompt(boxes=[[0, 0, 64, 48]], points=[[0, 0], [64, 48]])
    assert len(found) == 3 and found.image_size == (48, 64)
    (some,) = image.prompt_candidates(points=[[5, 5]], most=2)
    assert 1 <= len(some) <= 2
    for most in (0, 2.5, "3"):
        with pytest.raises(ValueError, match=f"most is {most!r}; give at least 1"):
            image.prompt_candidates(points=[[5, 5]], most=most)  # type: ignore[arg-type]
