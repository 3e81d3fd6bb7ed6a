"""Errors that say that memory is used up are told from others, without loading torch."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import diffinst.io
from diffinst.io.out_of_memory import OutOfMemory, explained, ran_out


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("cuBLAS: Out of Memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), True),
        (MemoryError(), True),
        (RuntimeError("shapes (2, 3) and (4,)"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_means_that_memory_is_used_up(error: Exception, expected: bool) -> None:
    assert ran_out(error) is expected
    kind = OutOfMemory if expected else type(error)
    with pytest.raises(kind) as caught, explained("predicting", lambda: "lower proposals"):
        raise error
    assert (caught.value is error) is not expected


def test_files_and_locks_load_without_torch() -> None:
    """Only images come as tensors."""
    folder = Path(diffinst.io.__path__[0])
    names = sorted(file.stem for file in folder.glob("[!_]*.py") if file.stem != "images")
    assert "lock" in names and "out_of_memory" in names
    code = "".join(f"import diffinst.io.{name}\n" for name in names)
    code += "import sys\nassert 'torch' not in sys.modules\n"
    subprocess.run([sys.executable, "-c", code], check=True)
