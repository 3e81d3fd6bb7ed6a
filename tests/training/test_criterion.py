"""Is every term of Eq. 5 what the arithmetic says, at every stage, with and without objects?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from diffinst.config import Config, CriterionConfig
from diffinst.models.mask_head import MaskHead
from diffinst.models.network import DiffusionInstNetwork
from diffinst.structures import Encoded, StageOutput, Targets
from diffinst.training.criterion import Criterion
from diffinst.training.pairs import Match, PackedTargets

LN2 = math.log(2)
CLASSES = 2
FIELDS = ("logits", "boxes", "filters")


@pytest.fixture(scope="module")
def on_map() -> MaskHead:
    return one_weight_head("map")


@pytest.fixture(scope="module")
def on_grid() -> MaskHead:
    return one_weight_head("grid")


def one_weight_head(evaluate: str) -> MaskHead:
    """F_mask has one channel and a filter two numbers: logit = weight * F_mask + bias."""
    config = Config.from_preset("tiny").updated(
        model={
            "mask_branch": {"channels": 1},
            "filters": {"layers": 1, "evaluate": evaluate, "grid_train": 2, "grid_margin": 0.0},
        }
    )
    head = DiffusionInstNetwork(config.model).mask_head
    assert head.layout.size == 2
    return head


def features() -> Encoded:
    """An image of 8 x 8: F_mask has 2 x 2 cells, which lie at pixels 2 and 6."""
    return Encoded.for_masks(torch.ones(1, 1, 2, 2, requires_grad=True), ((8, 8),))


def left_half() -> Targets:
    """Class 0 on columns 0 to 3."""
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[:, :, :4] = True
    return Targets(torch.tensor([[0.0, 0, 4, 8]]), torch.tensor([0]), mask)


def nothing() -> Targets:
    return Targets(
        torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 8, 8, dtype=torch.bool)
    )


def stage(
    logits: Sequence[Sequence[float]], boxes: Sequence[Sequence[float]] = ((0, 0, 2, 8),)
) -> StageOutput:
    """One image's queries; their filters are 0, so every mask probability is 1/2."""
    count = len(logits)
    tensors = (
        torch.tensor([logits], dtype=torch.float32),
        torch.tensor([list(boxes) * (count // len(boxes))], dtype=torch.float32),
        torch.zeros(1, count, 2),
        torch.zeros(1, count, 4),
    )
    return StageOutput(*(t.requires_grad_() for t in tensors))


def loss_of(
    head: MaskHead,
    stages: Sequence[StageOutput],
    owner: Sequence[Sequence[int]],
    config: CriterionConfig | None = None,
    target: Targets | None = None,
) -> dict[str, Tensor]:
    """Losses with given pairs; `owner` has a row of objects of the queries for each stage."""
    criterion = Criterion(config or CriterionConfig(), torch.ones(CLASSES))
    match = Match.of(torch.tensor(owner)[:, None])
    losses = criterion(stages, features(), [target or left_half()], head, match=match)
    assert isinstance(losses, dict)
    return losses


def test_every_term_by_hand(on_map: MaskHead) -> None:
    losses = loss_of(on_map, [stage([[0, 0]])], [[0]])
    # p = 1/2 for both classes: 1/4 (1/2)^2 ln 2 for the right one, 3/4 (1/2)^2 ln 2 for the other
    assert losses["loss/class"].item() == pytest.approx(2 * LN2 / 4)
    # only x2 is off, by 2 of 8 pixels
    assert losses["loss/l1"].item() == pytest.approx(5 * 2 / 8)
    # 16 of 32 pixels, the hull is the object
    assert losses["loss/giou"].item() == pytest.approx(2 * (1 - 1 / 2))
    # four cells of 1/2, two of them on the object: 1 - 2 * 1 / (4 / 4 + 2)
    assert losses["loss/dice"].item() == pytest.approx(5 / 3, rel=1e-5)
    terms = [v for k, v in losses.items() if k != "loss"]
    assert len(terms) == 4 and losses["loss"].item() == pytest.approx(sum(v.item() for v in terms))


def test_weights_are_applied_once(on_map: MaskHead) -> None:
    config = CriterionConfig(class_weight=1, l1_weight=1, giou_weight=1, mask_weight=1)
    losses = loss_of(on_map, [stage([[0, 0]])], [[0]], config)
    expected = {"class": LN2 / 4, "l1": 0.25, "giou": 0.5, "dice": 1 / 3}
    assert {k: losses[f"loss/{k}"].item() for k in expected} == pytest.approx(expected, rel=1e-5)


def test_unmatched_queries_learn_background_only(on_map: MaskHead) -> None:
    losses = loss_of(on_map, [stage([[0, 0], [0, 0]])], [[0, -1]])
    # two more classes at 3/4 (1/2)^2 ln 2
    assert losses["loss/class"].item() == pytest.approx(2 * (LN2 / 4 + 2 * 3 / 16 * LN2))
    assert losses["loss/l1"].item() == pytest.approx(5 * 2 / 8)


def test_each_stage_is_divided_by_its_own_pairs(on_map: MaskHead) -> None:
    stages = [stage([[0, 0], [0, 0]]) for _ in range(2)]
    losses = loss_of(on_map, stages, [[0, 0], [0, -1]])
    # two pairs with the same loss, then one
    for term in ("l1", "giou", "dice"):
        assert losses[f"loss/{term}_stage0"].item() == pytest.approx(losses[f"loss/{term}"].item())
    assert losses["loss/class_stage0"].item() == pytest.approx(2 * LN2 / 4)


def test_l1_in_shares_of_the_object(on_map: MaskHead) -> None:
    config = CriterionConfig.model_validate({"matcher": {"l1_unit": "object"}})
    losses = loss_of(on_map, [stage([[0, 0]])], [[0]], config)
    assert losses["loss/l1"].item() == pytest.approx(5 * 2 / 4)  # the object is 4 wide


def test_class_target_can_be_the_iou(on_map: MaskHead) -> None:
    losses = loss_of(on_map, [stage([[0, 0]])], [[0]], CriterionConfig(class_target="iou"))
    # the IoU is 1/2, which is what p says: only the other class is left
    assert losses["loss/class"].item() == pytest.approx(2 * 3 / 16 * LN2)


def test_dice_on_a_grid_in_the_object(on_grid: MaskHead) -> None:
    losses = loss_of(on_grid, [stage([[0, 0]])], [[0]])
    # four points of 1/2, all on the object: 1 - 2 * 2 / (4 / 4 + 4)
    assert losses["loss/dice"].item() == pytest.approx(5 / 5, rel=1e-4)


def test_federated_bce_by_hand(on_map: MaskHead) -> None:
    losses = loss_of(on_map, [stage([[0, 0]])], [[0]], CriterionConfig(class_loss="federated_bce"))
    assert losses["loss/class"].item() == pytest.approx(2 * 2 * LN2)


def gradients(stages: Sequence[StageOutput], losses: dict[str, Tensor]) -> list[dict[str, bool]]:
    """Per stage, whether logits, boxes and filters got a gradient that is not zero."""
    losses["loss"].backward()
    found = []
    for s in stages:
        grads = {f: getattr(s, f).grad for f in FIELDS}
        assert all(g is not None and bool(g.isfinite().all()) for g in grads.values())
        found.append({f: bool(g.any()) for f, g in grads.items()})
    return found


@pytest.mark.parametrize("evaluate", ["map", "grid"])
def test_all_stages_learn_everything(evaluate: str, request: pytest.FixtureRequest) -> None:
    head = request.getfixturevalue(f"on_{evaluate}")
    stages = [stage([[0, 0]]) for _ in range(6)]
    losses = loss_of(head, stages, [[0]] * 6)
    names = {f"loss/{t}{s}" for t in ("class", "l1", "giou", "dice") for s in ("", "_stage4")}
    assert names < losses.keys() and len(losses) == 4 * 6 + 1
    assert gradients(stages, losses) == [{"logits": True, "boxes": True, "filters": True}] * 6


def test_masks_of_the_last_stage_only(on_map: MaskHead) -> None:
    stages = [stage([[0, 0]]) for _ in range(3)]
    losses = loss_of(on_map, stages, [[0]] * 3, CriterionConfig(mask_stages="last"))
    assert {k for k in losses if "dice" in k} == {"loss/dice"}
    assert [g["filters"] for g in gradients(stages, losses)] == [False, False, True]


@pytest.mark.parametrize("evaluate", ["map", "grid"])
@pytest.mark.parametrize("class_loss", ["focal", "federated_focal", "federated_bce"])
def test_no_objects_at_all(evaluate: str, class_loss: str, request: pytest.FixtureRequest) -> None:
    head = request.getfixturevalue(f"on_{evaluate}")
    criterion = Criterion(
        CriterionConfig.model_validate({"class_loss": class_loss}), torch.ones(CLASSES)
    )
    stages, encoded = [stage([[0, 0], [0, 0]]) for _ in range(2)], features()
    losses = criterion(stages, encoded, [nothing()], head)
    # four negatives; not divided, for there is no pair
    expected = 4 * LN2 if class_loss == "federated_bce" else 4 * 3 / 16 * LN2
    assert losses["loss/class"].item() == pytest.approx(2 * expected)
    for term in ("l1", "giou", "dice"):
        assert losses[f"loss/{term}"].item() == 0
    # gradients exist everywhere, zero for filters and F_mask: no process waits for another
    assert gradients(stages, losses) == [{"logits": True, "boxes": False, "filters": False}] * 2
    grad = encoded.mask_features.grad
    assert grad is not None and not grad.any()


def test_images_with_and_without_objects_in_one_batch(on_map: MaskHead) -> None:
    one = stage([[0, 0]])
    both = StageOutput(*(t.detach().repeat(2, 1, 1) for t in vars(one).values()))
    batch = Encoded.for_masks(torch.ones(2, 1, 2, 2), ((8, 8), (8, 8)))
    criterion = Criterion(CriterionConfig())
    losses = criterion([both], batch, [nothing(), left_half()], on_map)
    alone = criterion([one], features(), [left_half()], on_map)
    for term in ("l1", "giou", "dice"):
        assert losses[f"loss/{term}"].item() == pytest.approx(alone[f"loss/{term}"].item())


def test_matching_is_used_where_no_pairs_are_given(on_map: MaskHead) -> None:
    boxes = [[0.0, 0, 4, 8], [4.0, 0, 8, 8], [0.0, 0, 2, 8]]
    criterion = Criterion(CriterionConfig())
    stages = [stage([[0, 0]] * 3, boxes), stage([[0, 0]] * 3, boxes[::-1])]
    packed = PackedTargets.of([left_half()], torch.device("cpu"))
    match = criterion.match(stages, packed, features().scale)
    assert match.owner.tolist() == [[[0, -1, -1]], [[-1, -1, 0]]]  # k = whole part of 1.5
    assert match.stage.tolist() == [0, 1] and match.query.tolist() == [0, 2]
    free = criterion(stages, features(), [left_half()], on_map)
    given = criterion(stages, features(), [left_half()], on_map, match=match)
    assert free["loss"].item() == given["loss"].item()
    assert free["loss/l1"].item() == 0 and free["loss/giou"].item() == pytest.approx(0, abs=1e-6)


def test_packing_pads_to_the_fullest_image() -> None:
    packed = PackedTargets.of([nothing(), left_half()], torch.device("cpu"))
    assert packed.boxes.tolist() == [[[0, 0, 0, 0]], [[0, 0, 4, 8]]]
    assert packed.valid.tolist() == [[False], [True]]
    assert PackedTargets.of([nothing()], torch.device("cpu")).boxes.shape == (1, 0, 4)


def taking_part(head: MaskHead, seed: int, owner: list[int], total: int) -> list[int]:
    """Classes of five whose logits learn, with a federated loss over `total` classes."""
    config = CriterionConfig(class_loss="federated_focal", federated_classes=total)
    criterion = Criterion(config, torch.tensor([4.0, 1, 1, 1, 0]))
    one = stage([[0.0] * 5] * len(owner))
    losses = criterion(
        [one],
        features(),
        [left_half()],
        head,
        match=Match.of(torch.tensor([[owner]])),
        generator=torch.Generator().manual_seed(seed),
    )
    losses["loss/class"].backward()
    assert one.logits.grad is not None
    return [int(c) for c in torch.nonzero(one.logits.grad.abs().sum((0, 1)))[:, 0]]


def test_federated_draws_fill_up_what_is_present(on_map: MaskHead) -> None:
    # class 0 and the background of the free query are two of three, so one more is drawn
    drawn = [taking_part(on_map, seed, [0, -1], 3) for seed in range(20)]
    assert all(len(classes) == 2 and classes[0] == 0 for classes in drawn)
    assert {classes[1] for classes in drawn} == {1, 2, 3}  # class 4 is in no image
    assert drawn[:3] == [taking_part(on_map, seed, [0, -1], 3) for seed in range(3)]
    # without a free query there is no background
    assert len(taking_part(on_map, 0, [0], 3)) == 3
    # more than there are: all that are in some image; fewer: what is present stays
    assert taking_part(on_map, 0, [0, -1], 50) == [0, 1, 2, 3]
    assert taking_part(on_map, 0, [0, -1], 1) == [0]


def test_classes_that_take_part_can_be_given(on_map: MaskHead) -> None:
    criterion = Criterion(CriterionConfig(class_loss="federated_focal"), torch.ones(CLASSES))
    one = stage([[0, 0]])
    match = Match.of(torch.tensor([[[0]]]))
    losses = criterion(
        [one], features(), [left_half()], on_map, match=match, federated=[torch.tensor([0, 2])]
    )
    assert losses["loss/class"].item() == pytest.approx(2 * LN2 / 16)  # the positive alone


@pytest.mark.parametrize("class_loss", ["federated_focal", "federated_bce"])
def test_federated_losses_need_counts(class_loss: str) -> None:
    with pytest.raises(ValueError, match=f"class_loss '{class_loss}'.*pass class_counts"):
        Criterion(CriterionConfig.model_validate({"class_loss": class_loss}))


def test_autocast_leaves_the_losses_in_float32(on_map: MaskHead) -> None:
    exact = loss_of(on_map, [stage([[0, 0]])], [[0]])
    with torch.autocast("cpu", torch.bfloat16):
        losses = loss_of(on_map, [stage([[0, 0]])], [[0]])
    assert all(v.dtype == torch.float32 for v in losses.values())
    assert losses["loss"].item() == pytest.approx(exact["loss"].item(), rel=1e-3)


def two_images(
    head: MaskHead,
) -> tuple[list[StageOutput], Encoded, list[Targets]]:
    """Two stages of five queries on two images of 16 x 16, with two objects and one."""
    rng = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=rng)

    def outputs() -> StageOutput:
        corners = random(2, 5, 2) * 8
        boxes = torch.cat([corners, corners + 2 + random(2, 5, 2) * 6], dim=-1)
        filters = random(2, 5, head.layout.size) - 0.5
        return StageOutput(
            *(t.requires_grad_() for t in (random(2, 5, CLASSES), boxes, filters, random(2, 5, 4)))
        )

    channels = head.layout.inputs - 2  # without the coordinates
    maps = (random(2, channels, 4, 4) - 0.5).requires_grad_()
    masks = random(3, 16, 16) < 0.4
    boxes = torch.tensor([[1.0, 2, 9, 12], [4, 4, 16, 15], [0, 3, 8, 8]])
    labels = torch.tensor([0, 1, 1])
    targets = [Targets(boxes[i], labels[i], masks[i]) for i in (slice(0, 2), slice(2, 3))]
    return [outputs(), outputs()], Encoded.for_masks(maps, ((16, 16),) * 2), targets


PAIRS = Match.of(  # seven pairs: three and two of the first stage, two and none of the last
    torch.tensor(
        [[[1, -1, 0, 0, -1], [-1, 0, 0, -1, -1]], [[-1, 0, -1, 1, -1], [-1, -1, -1, -1, -1]]]
    )
)


def head_with_coordinates(evaluate: str) -> MaskHead:
    """Filters of two layers that see where they are, so that all inputs of a mask count."""
    filters = {"layers": 2, "channels": 2, "coordinates": True, "evaluate": evaluate}
    config = Config.from_preset("tiny").updated(
        model={"mask_branch": {"channels": 2}, "filters": {**filters, "grid_train": 3}}
    )
    return DiffusionInstNetwork(config.model).mask_head


def loss_and_gradients(
    head: MaskHead, **criterion: object
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """All terms, and the gradients of everything that went in."""
    stages, encoded, targets = two_images(head)
    objective = Criterion(CriterionConfig.model_validate(criterion))
    losses = objective(stages, encoded, targets, head, match=PAIRS)
    losses["loss"].backward()
    inputs = [encoded.mask_features, *(getattr(s, f) for s in stages for f in FIELDS)]
    return losses, [t.grad for t in inputs if t.grad is not None]


@pytest.mark.parametrize("mask_stages", ["all", "last"])
@pytest.mark.parametrize("evaluate", ["map", "grid"])
def test_masks_in_chunks_are_the_same_loss(evaluate: str, mask_stages: str) -> None:
    head = head_with_coordinates(evaluate)
    plain, expected = loss_and_gradients(head, mask_stages=mask_stages)
    assert len(expected) == 1 + 2 * 3 and expected[0].any()
    for chunk in (1, 2, 100):
        losses, found = loss_and_gradients(head, mask_stages=mask_stages, mask_chunk=chunk)
        assert losses.keys() == plain.keys()
        torch.testing.assert_close(losses, plain, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("evaluate", "chunk", "sizes"),
    [
        ("map", None, [5, 2]),  # a stage at a time
        ("map", 2, [2, 2, 1, 2]),
        ("grid", None, [7]),
        ("grid", 3, [3, 3, 1]),
    ],
)
def test_a_chunk_is_how_many_masks_are_held(
    evaluate: str, chunk: int | None, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    head = head_with_coordinates(evaluate)
    name = "on_map" if evaluate == "map" else "at_points"
    original, held = getattr(head, name), []

    def counted(mask_features: Tensor, filters: Tensor, *arguments: object) -> Tensor:
        held.append(len(filters))
        logits: Tensor = original(mask_features, filters, *arguments)
        return logits

    monkeypatch.setattr(head, name, counted)
    loss_and_gradients(head, mask_chunk=chunk)
    assert held[: len(sizes)] == sizes
    again = held[len(sizes) :]  # in the backward pass, where they are not kept
    assert sorted(again) == ([] if evaluate == "grid" and chunk is None else sorted(sizes))


@pytest.mark.parametrize("evaluate", ["map", "grid"])
def test_chunks_of_nothing(evaluate: str, request: pytest.FixtureRequest) -> None:
    head = request.getfixturevalue(f"on_{evaluate}")
    criterion = Criterion(CriterionConfig(mask_chunk=1))
    stages, encoded = [stage([[0, 0]])], features()
    losses = criterion(stages, encoded, [nothing()], head)
    assert losses["loss/dice"].item() == 0
    assert losses["loss/class"].item() == pytest.approx(2 * 2 * 3 / 16 * LN2)
    assert gradients(stages, losses) == [{"logits": True, "boxes": False, "filters": False}]
    assert encoded.mask_features.grad is not None and not encoded.mask_features.grad.any()


def test_what_a_stage_is_divided_by_can_be_given(on_map: MaskHead) -> None:
    stages = [stage([[0, 0]]), stage([[0, 0]])]
    match = Match.of(torch.tensor([[[0]], [[0]]]))
    losses = Criterion(CriterionConfig())(
        stages, features(), [left_half()], on_map, match=match, pairs=torch.tensor([4.0, 0.5])
    )
    # the terms of one pair, as above
    expected = {"class": 2 * LN2 / 4, "l1": 5 * 2 / 8, "giou": 2 / 2, "dice": 5 / 3}
    for term, value in expected.items():
        assert losses[f"loss/{term}_stage0"].item() == pytest.approx(value / 4, rel=1e-5)
        assert losses[f"loss/{term}"].item() == pytest.approx(value / 0.5, rel=1e-5)
    total = sum(expected.values())
    assert losses["loss"].item() == pytest.approx(total / 4 + total / 0.5, rel=1e-5)


def test_pairs_are_counted_stage_by_stage() -> None:
    match = Match.of(torch.tensor([[[0, -1], [1, 0]], [[-1, -1], [-1, 2]]]))
    assert match.pairs().tolist() == [3, 1] and match.pairs().dtype == torch.float32
    assert match.stage.tolist() == [0, 0, 0, 1] and match.image.tolist() == [0, 1, 1, 1]
    assert match.query.tolist() == [0, 0, 1, 1] and match.target.tolist() == [0, 1, 0, 2]
    assert match.per_stage(torch.tensor([1.0, 2, 4, 8])).tolist() == [7, 8]
    assert PAIRS.pairs().tolist() == [5, 2]
    nobody = Match.of(torch.full((3, 1, 2), -1))
    assert nobody.pairs().tolist() == [0, 0, 0]
    assert Match.of(torch.full((2, 1, 0), -1)).pairs().tolist() == [0, 0]  # no query at all
