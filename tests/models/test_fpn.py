"""Does the pyramid add what is above, nearest-neighbour, before its 3x3 convolutions?"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from diffinst.models.fpn import FeaturePyramid


def identity_pyramid(levels: int) -> FeaturePyramid:
    """One channel; laterals and outputs hand on what they get."""
    fpn = FeaturePyramid([1] * levels, 1)
    for lateral, output in zip(fpn.laterals, fpn.outputs, strict=True):
        assert isinstance(lateral, nn.Conv2d) and isinstance(output, nn.Conv2d)
        for conv in (lateral, output):
            nn.init.zeros_(conv.weight)
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)
        nn.init.ones_(lateral.weight)
        output.weight.data[0, 0, 1, 1] = 1
    return fpn


def test_three_levels_by_hand() -> None:
    low = torch.arange(16.0).view(1, 1, 4, 4)
    middle = torch.tensor([[[[100.0, 200], [300, 400]]]])
    high = torch.tensor([[[[1000.0]]]])
    p2, p3, p4 = identity_pyramid(3)([low, middle, high])
    assert p4[0, 0].tolist() == [[1000]]
    assert p3[0, 0].tolist() == [[1100, 1200], [1300, 1400]]
    assert p2[0, 0].tolist() == [
        [1100, 1101, 1202, 1203],
        [1104, 1105, 1206, 1207],
        [1308, 1309, 1410, 1411],
        [1312, 1313, 1414, 1415],
    ]


def test_outputs_see_their_neighbours_after_the_sum() -> None:
    fpn = identity_pyramid(2)
    output = fpn.outputs[0]
    assert isinstance(output, nn.Conv2d)
    nn.init.ones_(output.weight)
    p2, _ = fpn([torch.ones(1, 1, 2, 2), torch.full((1, 1, 1, 1), 10.0)])
    assert p2.tolist() == [[[[44, 44], [44, 44]]]]  # four cells of 1 + 10, zeros around


def test_shapes_and_biases() -> None:
    torch.manual_seed(0)
    fpn = FeaturePyramid((3, 5, 7, 9), 6)
    maps = [torch.randn(2, c, 64 // s, 32 // s) for c, s in ((3, 4), (5, 8), (7, 16), (9, 32))]
    shapes = [tuple(p.shape) for p in fpn(maps)]
    assert shapes == [(2, 6, 16, 8), (2, 6, 8, 4), (2, 6, 4, 2), (2, 6, 2, 1)]
    assert all(m.bias is not None for m in fpn.modules() if isinstance(m, nn.Conv2d))


def test_a_map_too_few_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        identity_pyramid(3)([torch.ones(1, 1, 4, 4), torch.ones(1, 1, 2, 2)])
