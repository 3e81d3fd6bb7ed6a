"""Linear layers of the network: quick on any processor, and exact where the rest is rounded."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from diffinst.kernels.linear import linear


class Linear(nn.Linear):
    """`torch.nn.Linear` by way of `kernels.linear`."""

    def forward(self, x: Float[Tensor, "*batch I"]) -> Float[Tensor, "*batch _"]:
        """(..., in) to (..., out)."""
        return linear(x, self.weight, self.bias)


class OutputLinear(Linear):
    """A linear layer that computes in its own precision, whatever comes in.

    In a network that runs in bf16 these stay float32: scores would tie and boxes jump otherwise.
    """

    def forward(self, x: Float[Tensor, "*batch I"]) -> Float[Tensor, "*batch _"]:
        """(..., in) of any float type to (..., out) of the weights' type."""
        return super().forward(x.to(self.weight.dtype))
