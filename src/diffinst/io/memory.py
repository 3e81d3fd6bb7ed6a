"""Running out of memory, as a message that says what to lower."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "alloc_cpu")


@contextmanager
def explained(doing: str, advice: Callable[[], str]) -> Iterator[None]:
    """Turns running out of memory into a message that says what to lower.

    Args:
        doing: What happens inside, "training" for example.
        advice: Says what to lower; asked only if it happens.

    Raises:
        MemoryError: Out of memory.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not known and not any(sign in str(error).lower() for sign in SIGNS):
            raise
        raise MemoryError(f"out of memory while {doing}: {advice()}") from error
