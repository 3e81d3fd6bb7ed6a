"""Do d numbers become the right 1x1 convolutions?"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from diffinst.ops.filters import FilterLayout, apply_filters, relative_coordinates


@pytest.mark.parametrize(
    ("inputs", "layers", "size"), [(8, 1, 9), (8, 2, 81), (8, 3, 153), (8, 4, 225), (10, 3, 169)]
)
def test_lengths_of_the_paper(inputs: int, layers: int, size: int) -> None:
    assert FilterLayout(inputs=inputs, layers=layers).size == size


def test_split_puts_all_weights_before_all_biases() -> None:
    layout = FilterLayout(inputs=2, channels=3, layers=2)  # 3x2 + 1x3 weights, 3 + 1 biases
    (w0, b0), (w1, b1) = layout.split(torch.arange(13.0)[None])
    assert w0.tolist() == [[[0, 1], [2, 3], [4, 5]]]
    assert w1.tolist() == [[[6, 7, 8]]]
    assert b0.tolist() == [[9, 10, 11]]
    assert b1.tolist() == [[12]]


def test_wrong_length_is_named() -> None:
    with pytest.raises(ValueError, match="152 numbers, this layout 153"):
        FilterLayout().split(torch.zeros(1, 152))


def test_two_layers_by_hand() -> None:
    layout = FilterLayout(inputs=1, channels=2, layers=2)
    # hidden = relu(x + 0.5), relu(-x); logit = 2 * first - 3 * second + 1
    filters = torch.tensor([[1.0, -1.0, 2.0, -3.0, 0.5, 0.0, 1.0]])
    logits = apply_filters(torch.tensor([[2.0, -2.0, 0.0]]), filters, layout)
    assert logits.tolist() == [[6, -5, 2]]


@given(st.integers(0, 2**31), st.integers(0, 4), st.integers(1, 4))
def test_equals_convolutions_with_shared_and_own_points(seed: int, count: int, layers: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    layout = FilterLayout(inputs=5, channels=3, layers=layers)
    filters = torch.randn(count, layout.size, generator=generator, dtype=torch.float64)
    points = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    shared = apply_filters(points, filters, layout)
    own = apply_filters(points.expand(count, -1, -1), filters, layout)
    assert shared.shape == (count, 6)
    torch.testing.assert_close(shared, own)
    for i in range(count):
        hidden = points[None]
        for layer, (weight, bias) in enumerate(layout.split(filters[i : i + 1])):
            hidden = F.conv1d(hidden.relu() if layer else hidden, weight[0][..., None], bias[0])
        torch.testing.assert_close(shared[i], hidden[0, 0])


def test_gradient_reaches_filters_and_features() -> None:
    layout = FilterLayout(inputs=2, channels=2, layers=2)
    generator = torch.Generator().manual_seed(1)
    filters = torch.randn(3, layout.size, generator=generator, dtype=torch.float64)
    points = torch.randn(2, 4, generator=generator, dtype=torch.float64)
    inputs = (points.requires_grad_(), filters.requires_grad_())
    assert torch.autograd.gradcheck(lambda p, f: apply_filters(p, f, layout), inputs)


def test_bf16_stays_bf16() -> None:
    layout = FilterLayout()
    filters = torch.full((2, layout.size), 0.01, dtype=torch.bfloat16)
    logits = apply_filters(torch.ones(8, 5, dtype=torch.bfloat16), filters, layout)
    assert logits.dtype == torch.bfloat16 and logits.shape == (2, 5)


def test_relative_coordinates_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0.0, 4.0, 8.0], [2.0, 2.0, 2.0, 2.0]])
    points = torch.tensor([[2.0, 4.0], [4.0, 0.0]])
    seen = relative_coordinates(points, boxes)
    assert seen[0].tolist() == [[0, 0], [1, -1]]
    assert torch.isfinite(seen).all()  # the second box has no size
    own = relative_coordinates(points.expand(2, -1, -1), boxes)
    assert torch.equal(own, seen)
    assert relative_coordinates(points, boxes[:0]).shape == (0, 2, 2)
