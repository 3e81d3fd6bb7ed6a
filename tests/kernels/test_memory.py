"""Are large blocks that were freed used again, rather than cleared anew by the system?"""

from __future__ import annotations

import subprocess
import sys

import pytest

from diffinst.kernels.memory import keep_freed_memory

FAULTS = """
import resource, sys
import numpy as np
from diffinst.kernels.memory import keep_freed_memory

if sys.argv[1] == "kept" and not keep_freed_memory():
    sys.exit(77)
def touch():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        block = np.empty(2**26, np.uint8)
        block[::4096] = 1
        del block
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
touch()
print(touch())
"""


def faults(way: str) -> int:
    """Pages that had to be fetched for eight blocks of 64 MiB in a row."""
    command = [sys.executable, "-c", FAULTS, way]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("the C library is not glibc")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is Linux's")
def test_freed_blocks_are_used_again() -> None:
    assert faults("kept") * 10 < faults("returned")


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()
