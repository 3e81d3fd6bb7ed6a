"""How torch is loaded where a window already draws with OpenGL: with Triton's own compiler."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib import import_module


def load_triton() -> None:
    """Load Triton, if it is there, so that it uses no compiler but its own.

    On Linux Mesa's drivers bring an LLVM that all libraries loaded later see. Triton, which torch
    loads, has another one inside; with Mesa's functions in it the process ends with a segmentation
    fault. So it is loaded before torch, bound to its own functions first. Nothing is done where it
    is loaded or the system knows no such binding.
    """
    if not hasattr(os, "RTLD_DEEPBIND") or "triton" in sys.modules:
        return
    flags = sys.getdlopenflags()
    sys.setdlopenflags(flags | os.RTLD_DEEPBIND)
    try:
        with suppress(ImportError):  # torch does without it
            import_module("triton")
    finally:
        sys.setdlopenflags(flags)
