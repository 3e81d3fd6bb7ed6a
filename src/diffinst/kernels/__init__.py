"""What exists for speed or memory alone: the network computes the same, to rounding, without it.

`with diffinst.kernels.plain():` or the environment variable DIFFINST_KERNELS=plain turns all of it
off; what is left is the plain form in `diffinst.ops` and torch's own layers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

VARIABLE = "DIFFINST_KERNELS"
_off = [os.environ.get(VARIABLE) == "plain"]  # the last entry holds


def enabled() -> bool:
    """Whether kernels are used."""
    return not _off[-1]


@contextmanager
def plain() -> Iterator[None]:
    """No kernel is used inside, in any thread; compiled models stay as they were compiled.

    Example:
        >>> with plain():
        ...     enabled()
        False
    """
    _off.append(True)
    try:
        yield
    finally:
        _off.pop()
