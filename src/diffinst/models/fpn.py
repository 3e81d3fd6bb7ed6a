"""Feature pyramid: four backbone maps to p2..p5 of one width (FPN paper, 3)."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class FeaturePyramid(nn.Module):
    """1x1 laterals, nearest-neighbour top-down sums, 3x3 outputs; biases, no norm.

    Args:
        channels: Channels of the backbone's maps, strides 4 to 32.
        width: D.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.outputs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels)

    def forward(
        self, maps: Sequence[Float[Tensor, "B _ _ _"]]
    ) -> tuple[Float[Tensor, "B D _ _"], ...]:
        """Maps (B, C_i, H/s, W/s) to p2..p5, each (B, D, H/s, W/s)."""
        merged = [lateral(m) for lateral, m in zip(self.laterals, maps, strict=True)]
        for i in range(len(merged) - 2, -1, -1):
            merged[i] = merged[i] + F.interpolate(merged[i + 1], scale_factor=2.0, mode="nearest")
        return tuple(out(m) for out, m in zip(self.outputs, merged, strict=True))
