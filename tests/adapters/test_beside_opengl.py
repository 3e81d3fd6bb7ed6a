"""Does torch load where Mesa's LLVM is in the process, as in napari's window?"""

from __future__ import annotations

import os
import subprocess
import sys
from ctypes.util import find_library
from pathlib import Path

import pytest

LOADED = """
import ctypes, sys
if sys.argv[1]:
    ctypes.CDLL(sys.argv[1], mode=ctypes.RTLD_GLOBAL)  # as Mesa loads its drivers
flags = sys.getdlopenflags()
import diffinst.adapters.napari
assert "torch" not in sys.modules and "triton" not in sys.modules
from diffinst.adapters.beside_opengl import load_triton
load_triton()
load_triton()
assert sys.getdlopenflags() == flags
assert "torch" not in sys.modules
import torchvision
print("loaded", "triton" in sys.modules)
"""


def run(library: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", LOADED, library],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, (ended.returncode, ended.stderr[-2000:])
    return ended.stdout


def llvm() -> str | None:
    """Mesa's LLVM, wherever this system has it."""
    folders = [Path("/usr/lib/x86_64-linux-gnu"), Path("/usr/lib64"), Path("/usr/lib")]
    found = [str(path) for folder in folders for path in sorted(folder.glob("libLLVM*.so*"))]
    return next(iter(reversed(found)), find_library("LLVM"))


def test_the_plugin_waits_for_its_use_to_load_torch() -> None:
    assert run("").startswith("loaded")


@pytest.mark.skipif(not hasattr(os, "RTLD_DEEPBIND"), reason="only Linux binds so")
@pytest.mark.slow
def test_triton_loads_beside_mesas_compiler() -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    library = llvm()
    if library is None:
        pytest.skip("no LLVM library is installed")
    assert run(library) == "loaded True\n"
