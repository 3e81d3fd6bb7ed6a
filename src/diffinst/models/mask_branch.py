"""Mask branch: p2, p3, p4 to F_mask at stride 4 (paper, 3.3).

The paper's text says P3 to P5; F_mask of H/4 x W/4, as it says too, needs p2.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import chain

from jaxtyping import Float
from torch import Tensor, nn

from diffinst.config import MaskBranchConfig
from diffinst.kernels.again import Layer, by_convolutions
from diffinst.ops.masks import aligned_bilinear

LEVELS = 3  # p2, p3, p4


class MaskBranch(nn.Module):
    """Per level conv-norm-ReLU, brought to stride 4 and added; a tower; a 1x1 convolution to c.

    Args:
        in_channels: D.
        config: Widths and the norm.
    """

    def __init__(self, in_channels: int, config: MaskBranchConfig) -> None:
        super().__init__()
        width = config.width
        self.refine = nn.ModuleList(_conv_norm(in_channels, width, config) for _ in range(LEVELS))
        self.tower = nn.Sequential(*[_conv_norm(width, width, config) for _ in range(config.depth)])
        self.out = nn.Conv2d(width, config.channels, 1)

    def forward(self, pyramid: Sequence[Float[Tensor, "B D _ _"]]) -> Float[Tensor, "B c _ _"]:
        """p2.. (B, D, H/s, W/s) to F_mask (B, c, H/4, W/4)."""
        summed = by_convolutions(pyramid[0], self.refine[0].children())
        for i in range(1, LEVELS):
            layers: list[Layer] = [*self.refine[i].children()]
            layers.append(partial(aligned_bilinear, factor=2**i))
            summed = summed + by_convolutions(pyramid[i], layers)
        blocks = (block.children() for block in self.tower)
        return by_convolutions(summed, (*chain.from_iterable(blocks), self.out))


def _conv_norm(inputs: int, outputs: int, config: MaskBranchConfig) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    norm: nn.Module
    match config.norm:
        case "batch":
            norm = nn.BatchNorm2d(outputs)
        case "sync":
            norm = nn.SyncBatchNorm(outputs)
        case "group":
            norm = nn.GroupNorm(_groups(outputs), outputs)
    return nn.Sequential(conv, norm, nn.ReLU(inplace=True))


def _groups(channels: int) -> int:
    """Largest usual group count that divides the channels."""
    return next(g for g in (32, 16, 8, 4, 2, 1) if channels % g == 0)
