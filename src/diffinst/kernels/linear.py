"""Linear layers by the library that is quicker on this processor: oneDNN's products, or torch's.

torch leaves float32 products to MKL, which on processors of other makers than its own does not use
the widest registers; oneDNN, which torch has for convolutions, does, and adds the bias on the way.
The choice is one of the machine's, not of a measurement: a run that goes on later, and every
process of an evaluation, computes alike. Importing this registers the operator `diffinst::linear`.
"""

from __future__ import annotations

import platform
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from diffinst import kernels

CPUINFO = Path("/proc/cpuinfo")


def linear(
    x: Float[Tensor, "*batch I"], weight: Float[Tensor, "O I"], bias: Float[Tensor, "O"] | None
) -> Float[Tensor, "*batch O"]:
    """x @ weight^T + bias, as `torch.nn.functional.linear` to rounding, but differentiable once.

    Args:
        x: (..., I).
        weight: (O, I).
        bias: (O,), or None.
    """
    if (
        x.device.type != "cpu"
        or x.dtype != weight.dtype
        or x.ndim < 2
        or x.numel() == 0
        or torch.compiler.is_exporting()
        or torch.is_autocast_enabled("cpu")
        or not kernels.enabled()
        or not onednn_is_quicker(x.dtype)
    ):
        return F.linear(x, weight, bias)
    learns = x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    learns = learns and torch.is_grad_enabled()
    if torch.compiler.is_compiling():
        compiled: Tensor = F.linear(x, weight, bias) if learns else opaque(x, weight, bias)
        return compiled
    if learns:
        rows: Tensor = _OneDnnLinear.apply(x.flatten(0, -2), weight, bias)
        return rows.view(*x.shape[:-1], weight.shape[0])
    return product(x, weight, bias)


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight^T + bias by oneDNN; no gradient."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result


opaque = torch.library.custom_op(
    "diffinst::linear",
    lambda x, weight, bias: product(x, weight, bias),
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor x, Tensor weight, Tensor? bias) -> Tensor",
)
"""`product` as an operator that compilers of torch take as it is."""


@opaque.register_fake
def _shape(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


if TYPE_CHECKING:

    class _Context(Protocol):
        """What autograd hands from forward to backward."""

        saved_tensors: tuple[Tensor, ...]
        needs_input_grad: tuple[bool, ...]

        def save_for_backward(self, *tensors: Tensor) -> None: ...

else:  # autograd's ctx has its attributes only later, so nothing can be checked before
    _Context = object


class _OneDnnLinear(torch.autograd.Function):
    """(m, I) to (m, O), and the two products of its backward."""

    @staticmethod
    def forward(ctx: _Context, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: _Context, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            product(gradient, weight.t()) if needs_x else None,
            _weight_gradient(gradient, x) if needs_weight else None,
            gradient.sum(0) if needs_bias else None,
        )


def _weight_gradient(gradient: Tensor, x: Tensor) -> Tensor:
    """gradient^T @ x; where it is tall, as the transpose of a wide one, which is made quicker."""
    if gradient.shape[1] > x.shape[1]:
        return product(x.t(), gradient.t()).t()
    return product(gradient.t(), x.t())


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def onednn_is_quicker(dtype: torch.dtype) -> bool:
    """Whether to leave products to oneDNN here.

    In float32 where torch would take MKL and the processor has AVX-512 but is not Intel's. In
    bfloat16 torch takes oneDNN anyway, where the processor has it, and adds the bias before.
    """
    if not (torch.backends.mkldnn.enabled and _available()):
        return False
    match dtype:
        case torch.float32:
            return _mkl_holds_back()
        case torch.bfloat16:
            return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
        case _:
            return False


@lru_cache
def _available() -> bool:
    built = bool(torch.backends.mkldnn.is_available())
    names = ("_linear_pointwise", "_is_mkldnn_bf16_supported")
    return built and all(hasattr(torch.ops.mkldnn, name) for name in names)


@lru_cache
def _mkl_holds_back() -> bool:
    wide = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    maker = processor_maker()
    mkl = bool(torch.backends.mkl.is_available())
    return mkl and wide and maker not in ("", "GenuineIntel")


def processor_maker() -> str:
    """What the processor calls its maker, "AuthenticAMD" for one; empty where that is not known."""
    try:
        for line in CPUINFO.read_text("utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "vendor_id":
                return value.strip()
    except OSError:  # not Linux
        return platform.processor().rpartition(",")[2].strip()  # Windows names the maker last
    return ""
