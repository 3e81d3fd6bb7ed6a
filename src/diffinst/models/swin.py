"""Swin blocks in the published order: pad to whole windows first, then shift."""

from __future__ import annotations

import torch
from timm.models.swin_transformer import SwinTransformerBlock, window_partition, window_reverse
from torch import Tensor
from torch.nn import functional as F


class PadFirstSwinBlock(SwinTransformerBlock):
    """timm's Swin block in the reference's order: pad to whole windows, then shift.

    timm shifts first, which differs at sizes that are no multiple of the window.
    """

    def _attn(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        rows, columns = self.window_size
        shift = tuple(self.shift_size)
        x = F.pad(x, (0, 0, 0, -width % columns, 0, -height % rows))
        padded_height, padded_width = x.shape[1:3]
        mask = None
        if any(shift):
            x = torch.roll(x, shifts=(-shift[0], -shift[1]), dims=(1, 2))
            mask = self.get_attn_mask(x)
        windows = window_partition(x, self.window_size).flatten(1, 2)
        windows = self.attn(windows, mask=mask).unflatten(1, (rows, columns))
        x = window_reverse(windows, self.window_size, padded_height, padded_width)
        if any(shift):
            x = torch.roll(x, shifts=shift, dims=(1, 2))
        return x[:, :height, :width].contiguous()
