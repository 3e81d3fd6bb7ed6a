"""Running out of memory, as a message that says what to lower."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "alloc_cpu")


class OutOfMemory(MemoryError):
    """Out of memory; the message says what to lower."""


@contextmanager
def explained(doing: str, advice: Callable[[], str]) -> Iterator[None]:
    """Turns running out of memory into a message that says what to lower.

    Args:
        doing: What happens inside, "training" for example.
        advice: Says what to lower; asked only if it happens.

    Raises:
        OutOfMemory: It was used up; one that was explained further inside passes as it is.
    """
    try:
        yield
    except OutOfMemory:
        raise
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not known and not any(sign in str(error).lower() for sign in SIGNS):
            raise
        raise OutOfMemory(f"out of memory while {doing}: {advice()}") from error
