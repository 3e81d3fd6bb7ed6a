"""Linear layers by the library that is quicker on this processor: oneDNN's products, or torch's.

torch leaves float32 products to MKL, which on processors of other makers than its own uses half of
what they can do; oneDNN, which torch has for convolutions, uses all of it, and adds the bias on the
way. Where both are as quick, torch's own stay.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from typing import Protocol, no_type_check

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

ROWS, INNER, COLUMNS = 1000, 256, 4096  # of the probe, in the manner of the paper's decoder
ROUNDS = 5
WORTH_IT = 0.8  # oneDNN is taken where it needs at most so much of the other's time
NEAR = 1e-4  # of sums over `INNER` products of N(0, 1)


def linear(
    x: Float[Tensor, "*batch I"], weight: Float[Tensor, "O I"], bias: Float[Tensor, "O"] | None
) -> Float[Tensor, "*batch O"]:
    """x @ weight^T + bias, as `torch.nn.functional.linear` to rounding.

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
        or not onednn_is_quicker(x.dtype)
    ):
        return F.linear(x, weight, bias)
    if torch.compiler.is_compiling():
        compiled: Tensor = opaque(x, weight, bias)
        return compiled
    learns = x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    if torch.is_grad_enabled() and learns:
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


class _Context(Protocol):
    """What autograd hands from forward to backward."""

    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]

    def save_for_backward(self, *tensors: Tensor) -> None: ...


@no_type_check  # at run time, that is: autograd's ctx has its attributes only later
class _OneDnnLinear(torch.autograd.Function):
    """(m, I) to (m, O): three products; transposed operands are read where they lie."""

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
    """gradient^T @ x, made with the longer side in its rows, where that is quicker."""
    if gradient.shape[1] > x.shape[1]:
        return product(x.t(), gradient.t()).t()
    return product(gradient.t(), x.t())


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def onednn_is_quicker(dtype: torch.dtype) -> bool:
    """Whether to leave products to oneDNN here.

    In float32 both are tried, once a process. In bfloat16 torch takes oneDNN anyway, where the
    processor has it, and adds the bias before.
    """
    match dtype:
        case torch.float32:
            return _available() and _tried()
        case torch.bfloat16:
            return _available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
        case _:
            return False


@lru_cache
def _available() -> bool:
    built = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    names = ("_linear_pointwise", "_is_mkldnn_bf16_supported")
    return built and all(hasattr(torch.ops.mkldnn, name) for name in names)


@lru_cache
def _tried() -> bool:
    with torch.inference_mode(), torch.random.fork_rng(devices=[]):
        x, weight = torch.randn(ROWS, INNER), torch.randn(COLUMNS, INNER)
        bias = torch.randn(COLUMNS)
        try:
            away = (product(x, weight, bias) - F.linear(x, weight, bias)).abs().max()
        except RuntimeError:  # built without it
            return False
        if not float(away) <= NEAR:
            return False
        return quicker(
            lambda: product(x, weight, bias), lambda: F.linear(x, weight, bias), WORTH_IT
        )


def quicker(one: Callable[[], object], other: Callable[[], object], share: float) -> bool:
    """Whether the first takes at most a share of the second's time, best of rounds in turns."""
    seconds = [float("inf"), float("inf")]
    for _ in range(ROUNDS):
        for i, run in enumerate((one, other)):
            begin = time.perf_counter()
            run()
            seconds[i] = min(seconds[i], time.perf_counter() - begin)
    return seconds[0] <= share * seconds[1]
