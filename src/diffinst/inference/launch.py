"""How heavy work is run: as it is, or by something that holds pieces of work back."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeAlias

from torch import Tensor

Tensors: TypeAlias = tuple[Tensor, ...]
Launch: TypeAlias = Callable[[Hashable, Callable[..., Tensors], Tensors], Tensors]
"""Runs a piece of work on its inputs. Whatever holds pieces of work back may go by their name: two
of one name have to do the same to the same inputs, which are tensors alone for that reason."""


def direct(name: Hashable, work: Callable[..., Tensors], inputs: Tensors) -> Tensors:
    """Runs the work as it is."""
    return work(*inputs)
