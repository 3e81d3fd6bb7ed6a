"""Do masks agree wherever a filter is evaluated?"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffinst.config import FilterConfig
from diffinst.models.mask_head import MaskHead
from diffinst.ops.masks import map_points


def random_features() -> Tensor:
    """F_mask of two images of 64 x 96."""
    return torch.randn(2, 8, 16, 24, generator=torch.Generator().manual_seed(2))


def scene(layout_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Filters, boxes and images of three instances, two of them on the first image."""
    filters = torch.randn(3, layout_size, generator=torch.Generator().manual_seed(1))
    boxes = torch.tensor([[4.0, 4, 30, 30], [10, 10, 80, 45], [2, 0, 40, 64]])
    return filters, boxes, torch.tensor([0, 0, 1])


@torch.no_grad()
@pytest.mark.parametrize("coordinates", [False, True])
def test_a_filter_says_the_same_on_the_map_and_at_its_points(coordinates: bool) -> None:
    head = MaskHead(FilterConfig(coordinates=coordinates), 8)
    assert head.layout.size == (169 if coordinates else 153)
    features = random_features()
    filters, boxes, image = scene(head.layout.size)
    on_map = head.on_map(features, filters, boxes, image)
    assert on_map.shape == (3, 16, 24)
    points = map_points((16, 24), filters.device).expand(3, -1, -1)
    at_points = head.at_points(features, filters, boxes, image, points)
    torch.testing.assert_close(at_points, on_map.flatten(1), rtol=1e-3, atol=1e-3)
    # the box matters only where the filter sees coordinates
    moved = head.on_map(features, filters, boxes + 5, image)
    assert torch.allclose(moved, on_map) != coordinates


@torch.no_grad()
def test_grids_lie_in_the_enlarged_boxes() -> None:
    head = MaskHead(FilterConfig(), 8)
    features = random_features()
    filters, boxes, image = scene(head.layout.size)
    logits = head.on_grid(features, filters, boxes, image, 5)
    assert logits.shape == (3, 25)
    # 20 % larger, five cells: the first point lies a tenth of the enlarged box inside it
    large = torch.tensor([[1.4, 1.4], [3.0, 6.5], [-1.8, -6.4]])
    first = large + torch.tensor([[31.2, 31.2], [84.0, 42.0], [45.6, 76.8]]) / 10
    at_first = head.at_points(features, filters, boxes, image, first[:, None])
    torch.testing.assert_close(at_first[:, 0], logits[:, 0])


@torch.no_grad()
def test_no_instances_have_no_masks() -> None:
    head = MaskHead(FilterConfig(), 8)
    features = random_features()
    filters, boxes, image = (x[:0] for x in scene(head.layout.size))
    assert head.on_map(features, filters, boxes, image).shape == (0, 16, 24)
    assert head.on_grid(features, filters, boxes, image, 4).shape == (0, 16)
