"""What a backward pass makes again instead of keeping: large results of cheap operations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from diffinst import kernels

Layer = Callable[[Tensor], Tensor]


def again(
    function: Callable[..., Tensor], *inputs: Tensor, norms: Sequence[_BatchNorm] = ()
) -> Tensor:
    """function(*inputs), whose intermediate results are made again in the backward pass.

    Nothing is computed twice behind the last result that backward needs.

    Args:
        function: Of tensors, without randomness.
        inputs: What is kept.
        norms: Those inside that count what they see: they do not count it twice.
    """
    if not (kernels.enabled() and torch.is_grad_enabled()) or torch.compiler.is_compiling():
        return function(*inputs)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _on_copies(norms)

    result: Tensor = checkpoint(
        function, *inputs, use_reentrant=False, preserve_rng_state=False, context_fn=contexts
    )
    return result


def by_convolutions(x: Tensor, layers: Iterable[Layer]) -> Tensor:
    """Layers in a row, of which backward keeps x and the results of convolutions alone.

    Norms, ReLUs and the like between them are made again. A norm that asks other processes is not.
    """
    for part in _cut(layers):
        norms = [layer for layer in part if isinstance(layer, _BatchNorm)]
        run = _in_a_row(part)
        alone = len(part) == 1 or any(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
        x = run(x) if alone else again(run, x, norms=norms)
    return x


def _cut(layers: Iterable[Layer]) -> list[list[Layer]]:
    """Parts that end with a convolution, and what is left behind the last one."""
    parts: list[list[Layer]] = [[]]
    for layer in layers:
        parts[-1].append(layer)
        if isinstance(layer, nn.Conv2d):
            parts.append([])
    return [part for part in parts if part]


def _in_a_row(layers: list[Layer]) -> Layer:
    return lambda x: reduce(lambda value, layer: layer(value), layers, x)


@contextmanager
def _on_copies(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Running statistics move on copies, and are what they were again afterwards."""
    kept = [(norm, name, value) for norm in norms for name, value in norm.named_buffers()]
    try:
        for norm, name, value in kept:
            setattr(norm, name, value.clone())
        yield
    finally:
        for norm, name, value in kept:
            setattr(norm, name, value)
