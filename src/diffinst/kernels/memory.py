"""How this process gets its memory from the system."""

from __future__ import annotations

import ctypes
import sys

from diffinst import kernels

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
THRESHOLDS = (2**31 - 1, 2**25)  # the largest an int holds; what older versions accept


def keep_freed_memory() -> bool:
    """Let this process reuse large blocks that it freed, instead of handing them back each time.

    A block that comes from the system anew has every page cleared at its first use, which took a
    seventh of a training iteration. Only glibc is told; the peak grows by a few per cent.

    Returns:
        Whether it was.
    """
    if not (kernels.enabled() and sys.platform.startswith("linux")):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return False
    taken = any(mallopt(M_MMAP_THRESHOLD, threshold) for threshold in THRESHOLDS)
    return taken and bool(mallopt(M_TRIM_THRESHOLD, -1))
