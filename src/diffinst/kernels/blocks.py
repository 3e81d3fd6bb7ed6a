"""Row-wise functions a few rows at a time, so that their intermediate results reuse memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffinst import kernels
from diffinst.kernels.again import again

REUSED = 2**25 - 2**18
"""Bytes: larger blocks a C library gives back at once, and has each page cleared at its next use
(glibc: from 32 MiB)."""
LAUNCHED = 2**28
"""Bytes of a block in training on a GPU, where every operation has to be launched."""


def by_rows(
    make: Callable[[Tensor, Tensor], Tensor],
    use: Callable[[Tensor], Tensor],
    first: Tensor,
    second: Tensor,
    width: int,
) -> Tensor:
    """use(make(first, second)), in blocks of rows where the intermediate results are large.

    In training all intermediate results are then not kept, but made again in the backward pass,
    block by block.

    Args:
        make: Row i of its result follows from row i of both inputs alone.
        use: What is done with it, row by row, too.
        first: (M, ...).
        second: (M, ...).
        width: Numbers per row of the largest intermediate result of `make`.
    """
    pieces = _pieces(first, width)
    if pieces < 2:
        return use(make(first, second))
    both = zip(first.tensor_split(pieces), second.tensor_split(pieces), strict=True)
    return torch.cat([again(lambda a, b: use(make(a, b)), *pair) for pair in both])


def _pieces(rows: Tensor, width: int) -> int:
    if rows.device.type != "cpu" and not torch.is_grad_enabled():
        return 1
    if torch.compiler.is_compiling() or torch.compiler.is_exporting():
        return 1
    if not kernels.enabled():
        return 1
    block = REUSED if rows.device.type == "cpu" else LAUNCHED
    return min(-(-len(rows) * width * rows.element_size() // block), len(rows))
