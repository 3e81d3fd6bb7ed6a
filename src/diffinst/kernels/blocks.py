"""Row-wise functions a few rows at a time, so that their intermediate results reuse memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffinst import kernels

REUSED = 2**25 - 2**18
"""Bytes: larger blocks a C library gives back at once, and has each page cleared at its next use
(glibc: from 32 MiB)."""


def by_rows(
    function: Callable[[Tensor, Tensor], Tensor], first: Tensor, second: Tensor, width: int
) -> Tensor:
    """function(first, second), in blocks of rows where that is faster.

    Args:
        function: Row i of its result follows from row i of both inputs alone.
        first: (M, ...).
        second: (M, ...).
        width: Numbers per row of the largest intermediate result.
    """
    pieces = _pieces(first, width)
    if pieces < 2:
        return function(first, second)
    both = zip(first.tensor_split(pieces), second.tensor_split(pieces), strict=True)
    return torch.cat([function(some, their) for some, their in both])


def _pieces(rows: Tensor, width: int) -> int:
    whole = rows.device.type != "cpu" or torch.is_grad_enabled()  # kept for backward
    if whole or torch.compiler.is_compiling() or torch.compiler.is_exporting():
        return 1
    if not kernels.enabled():
        return 1
    return min(-(-len(rows) * width * rows.element_size() // REUSED), len(rows))
