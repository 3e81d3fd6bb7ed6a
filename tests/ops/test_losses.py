"""Are the loss terms right by hand?"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from diffinst.ops.losses import dice, sample_classes, sigmoid_focal


def test_focal_by_hand() -> None:
    # p = 1/2: a positive costs 0.25 * (1/2)^2 * ln 2, a negative 0.75 * (1/2)^2 * ln 2
    loss = sigmoid_focal(torch.zeros(2), torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(loss, torch.tensor([1.0, 3.0]) * math.log(2) / 16)


@given(st.lists(st.tuples(st.floats(-60, 60, width=32), st.integers(0, 1)), max_size=20))
def test_focal_equals_torchvision(pairs: list[tuple[float, int]]) -> None:
    logits = torch.tensor([x for x, _ in pairs], dtype=torch.float32)
    targets = torch.tensor([t for _, t in pairs], dtype=torch.float32)
    wanted = sigmoid_focal_loss(logits, targets, alpha=0.25, gamma=2)
    torch.testing.assert_close(sigmoid_focal(logits, targets), wanted, rtol=1e-4, atol=1e-6)


def test_without_focus_it_is_cross_entropy() -> None:
    logits, targets = torch.randn(3, 4), torch.rand(3, 4).round()
    plain = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    torch.testing.assert_close(sigmoid_focal(logits, targets, alpha=-1, gamma=0), plain)


def test_soft_targets_are_reached_where_probability_equals_them() -> None:
    target = torch.tensor([0.3])
    exact = sigmoid_focal(torch.logit(target), target)
    assert exact.item() == pytest.approx(0, abs=1e-12)
    assert sigmoid_focal(torch.logit(target) - 1, target) > 0.001
    assert sigmoid_focal(torch.logit(target) + 1, target) > 0.001


def test_extreme_logits_have_finite_loss_and_gradient() -> None:
    logits = torch.tensor([-1e4, 1e4, 0.0], requires_grad=True)
    loss = sigmoid_focal(logits, torch.tensor([1.0, 0.0, 1.0]))
    loss.sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(loss).all() and torch.isfinite(logits.grad).all()


def test_dice_by_hand() -> None:
    # 1 - 2 * 0.5 / (0.25 + 1), but for the 1e-5 in the denominator
    half = dice(torch.tensor([[0.5, 0.0]]), torch.tensor([[1.0, 0.0]]))
    assert half.item() == pytest.approx(0.2, abs=1e-5)
    perfect, missed = torch.tensor([[1.0, 1.0]]), torch.tensor([[0.0, 0.0]])
    assert dice(perfect, perfect).item() == pytest.approx(0, abs=1e-5)
    assert dice(missed, perfect).item() == 1
    assert dice(missed, missed).item() == 1


def test_losses_of_bf16_are_float32() -> None:
    half = torch.full((2, 3), 0.5, dtype=torch.bfloat16)
    assert sigmoid_focal(half, half).dtype == dice(half, half).dtype == torch.float32


def test_losses_of_nothing() -> None:
    assert sigmoid_focal(torch.zeros(0, 5), torch.zeros(0, 5)).shape == (0, 5)
    assert dice(torch.zeros(0, 9), torch.zeros(0, 9)).shape == (0,)


def drawn(present: list[int], weights: list[float], total: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor(present, dtype=torch.int64)
    return sample_classes(labels, torch.tensor(weights), total, generator).tolist()


def test_present_classes_always_take_part() -> None:
    assert drawn([2, 0, 2], [1.0] * 4, 2) == [0, 2]
    assert drawn([2, 0, 2], [1.0] * 4, 1) == [0, 2]  # more than wanted: all of them
    assert set(drawn([2, 0, 4], [1.0] * 4, 4)) >= {0, 2, 4}  # 4 is background


def test_only_classes_with_weight_are_drawn() -> None:
    assert drawn([0], [0.0, 1.0, 0.0, 1.0], 4) == [0, 1, 3]
    assert drawn([], [0.0, 0.0], 2) == []


@given(
    st.integers(0, 2**31),
    st.integers(1, 30),
    st.integers(1, 40),
    st.lists(st.integers(0, 30), max_size=9),
)
def test_drawn_classes_are_unique_and_as_many_as_asked(
    seed: int, classes: int, total: int, labels: list[int]
) -> None:
    present = [label for label in labels if label <= classes]
    result = drawn(present, [1.0] * classes, total, seed)
    assert result == sorted(set(result)) and set(present) <= set(result)
    background = classes in present
    assert len(result) == max(len(set(present)), min(total, classes + background))


def test_draws_repeat_with_their_generator() -> None:
    assert drawn([1], [1.0] * 50, 9, seed=3) == drawn([1], [1.0] * 50, 9, seed=3)
    assert drawn([1], [1.0] * 50, 9, seed=3) != drawn([1], [1.0] * 50, 9, seed=4)
