"""Running out of memory, as a message that says what to lower."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

# What torch's errors say, which are all RuntimeErrors.
SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "alloc_cpu")


class OutOfMemory(MemoryError):
    """Out of memory; the message says what to lower."""


@contextmanager
def explained(doing: str, advice: Callable[[], str]) -> Iterator[None]:
    """Turn running out of memory into a message that says what to lower.

    Args:
        doing: What happens inside, "training" for example.
        advice: Says what to lower; called only if it happens.

    Raises:
        OutOfMemory: It was used up; one that was explained further inside passes as it is.
    """
    try:
        yield
    except OutOfMemory:
        raise
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        raise OutOfMemory(f"out of memory while {doing}: {advice()}") from error


def ran_out(error: Exception) -> bool:
    """Whether an error says that memory is used up, of the computer or of an accelerator."""
    if isinstance(error, RuntimeError):
        return any(sign in str(error).lower() for sign in SIGNS)
    return isinstance(error, MemoryError)
