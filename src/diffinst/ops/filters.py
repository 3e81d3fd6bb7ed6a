"""Instance-aware filters theta: how d numbers become three 1x1 convolutions over F_mask (Eq. 3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class FilterLayout:
    """Where weights and biases lie in a filter vector: all weights by layer, then all biases.

    Weights are row-major (out, in). The defaults are the paper's {8, 8, 1}: d = 153.

    Attributes:
        inputs: Channels the first layer sees (F_mask, plus 2 with relative coordinates).
        channels: Width of the hidden layers.
        layers: Number of 1x1 convolutions; the last has one output.
    """

    inputs: int = 8
    channels: int = 8
    layers: int = 3

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """(out, in) of each layer."""
        widths = [self.inputs, *[self.channels] * (self.layers - 1), 1]
        return tuple((widths[i + 1], widths[i]) for i in range(self.layers))

    @property
    def size(self) -> int:
        """d, the length of a filter vector.

        Example:
            >>> FilterLayout().size, FilterLayout(inputs=10).size
            (153, 169)
        """
        return sum(out * inp + out for out, inp in self.shapes)

    def split(
        self, filters: Float[Tensor, "n d"]
    ) -> list[tuple[Float[Tensor, "n _ _"], Float[Tensor, "n _"]]]:
        """(n, d) filters to one (weight (n, out, in), bias (n, out)) per layer."""
        if filters.shape[-1] != self.size:
            raise ValueError(f"filters have {filters.shape[-1]} numbers, this layout {self.size}")
        weights = [out * inp for out, inp in self.shapes]
        biases = [out for out, _ in self.shapes]
        parts = torch.split(filters, [*weights, *biases], dim=-1)
        return [
            (parts[i].view(-1, *shape), parts[self.layers + i])
            for i, shape in enumerate(self.shapes)
        ]


def apply_filters(
    features: Float[Tensor, "inputs p"] | Float[Tensor, "n inputs p"],
    filters: Float[Tensor, "n d"],
    layout: FilterLayout,
) -> Float[Tensor, "n p"]:
    """Run each filter over its points; ReLU between the layers (Eq. 3).

    Args:
        features: (inputs, p) shared by all filters, or (n, inputs, p) one per filter.
        filters: (n, d).
        layout: How d is laid out.

    Returns:
        (n, p) mask logits.
    """
    hidden = features
    last = layout.layers - 1
    for i, (weight, bias) in enumerate(layout.split(filters)):
        if hidden.ndim == 2:  # one GEMM for all instances: (n * out, in) @ (in, points)
            hidden = (weight.flatten(0, 1) @ hidden).view(*weight.shape[:2], hidden.shape[1])
            hidden = hidden + bias[..., None]
        else:
            hidden = torch.baddbmm(bias[..., None], weight, hidden)
        if i < last:
            hidden = hidden.relu_()  # neither product needs its output in backward
    return hidden[:, 0]


def relative_coordinates(
    points: Float[Tensor, "p 2"] | Float[Tensor, "#n p 2"], boxes: Float[Tensor, "n 4"]
) -> Float[Tensor, "n p 2"]:
    """Points seen from a box: 0 at its centre, -1 and 1 at its sides.

    Args:
        points: (p, 2) shared by all boxes, or (n, p, 2) one set per box; x, y pixels.
        boxes: (n, 4) xyxy pixels.

    Returns:
        (n, p, 2).
    """
    centre = (boxes[:, None, :2] + boxes[:, None, 2:]) * 0.5
    half = ((boxes[:, None, 2:] - boxes[:, None, :2]) * 0.5).clamp(min=1e-3)
    return (points - centre) / half
