"""Does F_mask sum p2, p3 and p4 at stride 4, and nothing else?"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from diffinst.config import MaskBranchConfig
from diffinst.models.mask_branch import MaskBranch


def transparent(depth: int = 0) -> MaskBranch:
    """One channel, centre taps of 1, eval-mode BatchNorm as it starts (divides by 1.000005)."""
    branch = MaskBranch(1, MaskBranchConfig(width=1, channels=1, depth=depth)).eval()
    for module in branch.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.weight)
            module.weight.data[0, 0, module.kernel_size[0] // 2, module.kernel_size[1] // 2] = 1
    assert branch.out.bias is not None
    nn.init.zeros_(branch.out.bias)
    return branch


def pyramid(*values: float) -> list[Tensor]:
    """Constant p2, p3, ... of a 64 x 64 image."""
    return [torch.full((1, 1, 16 >> i, 16 >> i), float(v)) for i, v in enumerate(values)]


@torch.no_grad()
def test_the_levels_are_added_and_mapped_by_hand() -> None:
    branch = transparent(depth=2)
    branch.out.weight.fill_(3)
    assert branch.out.bias is not None
    branch.out.bias.fill_(-1)
    features = branch(pyramid(1, 2, 4, 1e6))
    assert features.shape == (1, 1, 16, 16)
    # (1 + 2 + 4) * 3 - 1 = 20; p5 takes no part
    torch.testing.assert_close(features, torch.full_like(features, 20.0), rtol=1e-4, atol=0)


@torch.no_grad()
def test_each_level_is_rectified_before_the_sum() -> None:
    features = transparent()(pyramid(5, -3, 2))
    torch.testing.assert_close(features, torch.full_like(features, 7.0), rtol=1e-4, atol=0)


@torch.no_grad()
@pytest.mark.parametrize(("level", "factor"), [(1, 2), (2, 4)])
def test_a_coarse_cell_lies_at_the_middle_of_what_it_covers(level: int, factor: int) -> None:
    maps = pyramid(0, 0, 0)
    maps[level][0, 0, 2, 1] = 1
    features = transparent()(maps)[0, 0]
    row, column = divmod(int(features.argmax()), 16)
    assert (row, column) == (factor * 2 + factor // 2, factor * 1 + factor // 2)
    assert float(features.sum()) == pytest.approx(factor**2, rel=1e-4)  # a tent of unit height


@pytest.mark.parametrize(("width", "groups"), [(128, 32), (16, 16), (20, 4), (7, 1)])
def test_group_norm_splits_any_width(width: int, groups: int) -> None:
    branch = MaskBranch(8, MaskBranchConfig(width=width, norm="group", depth=1))
    norms = [m for m in branch.modules() if isinstance(m, nn.GroupNorm)]
    assert [n.num_groups for n in norms] == [groups] * 4  # three levels and the tower
    maps = [torch.randn(2, 8, 16 >> i, 16 >> i) for i in range(3)]
    assert branch(maps).shape == (2, 8, 16, 16)


@pytest.mark.parametrize(("norm", "kind"), [("batch", nn.BatchNorm2d), ("sync", nn.SyncBatchNorm)])
def test_norms_by_name(norm: str, kind: type[nn.Module]) -> None:
    config = MaskBranchConfig.model_validate({"norm": norm, "width": 8})
    branch = MaskBranch(8, config)
    assert sum(type(m) is kind for m in branch.modules()) == 3 + config.depth
