"""Does the RoI kernel give the weighted gather's numbers, and does it compile for GPUs?"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="no Triton for this platform")

AGAINST_THE_PLAIN_FORM = """
import torch
from diffinst.kernels.roi import pool_by
from diffinst.kernels.roi_triton import pool as kernel
from diffinst.ops.roi_align import pool
from diffinst.structures import Pyramid

generator = torch.Generator().manual_seed(0)
sizes = [(16, 24), (8, 12), (4, 6), (2, 3)]
pyramid = [torch.randn(2, 20, *size, generator=generator) for size in sizes]
low = torch.rand(2, 6, 2, generator=generator) * 140 - 30
side = 2 ** (torch.rand(2, 6, 2, generator=generator) * 12 - 2)
boxes = torch.cat([low, low + side], -1)
boxes[0, 0], boxes[0, 1] = torch.nan, 1e30
boxes[1, 0] = torch.tensor([9.0, 9.0, 3.0, 3.0])
boxes[1, 1] = torch.tensor([-16.0, 0.0, 16.0, 16.0])  # half of its samples beyond the border
exact, rounded = dict(rtol=0, atol=1e-6), dict(rtol=0.01, atol=0.03)
for dtype, near in ((torch.float32, exact), (torch.bfloat16, rounded)):
    maps = [level.to(dtype) for level in pyramid]
    for size, sampling in ((7, 2), (3, 1), (1, 3)):
        wanted = pool(Pyramid.of([m.float() for m in maps]), boxes, size, sampling)
        found = pool_by(kernel, Pyramid.of(maps), boxes, size, sampling)
        assert found.dtype == dtype
        torch.testing.assert_close(found.float(), wanted, **near)
    assert pool_by(kernel, Pyramid.of(maps), boxes[:, :0], 7, 2).shape == (2, 0, 49, 20)
"""


def test_equals_the_weighted_gather() -> None:
    """Interpreted: in a process of its own, as Triton asks for that before it is imported."""
    command = [sys.executable, "-c", AGAINST_THE_PLAIN_FORM]
    asked = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=asked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("capability", [80, 90])
def test_compiles_to_wide_loads_without_a_gpu(capability: int) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from diffinst.kernels import roi_triton

    integers = dict.fromkeys(("level", "heights", "widths", "starts"), "*i64")
    given = {"table": "*bf16", "boxes": "*fp32", **integers, "scales": "*fp32", "pooled": "*bf16"}
    given |= dict.fromkeys(("rows", "count", "channels"), "i32")
    fixed = {"SIZE": 7, "SAMPLING": 2, "BLOCK": 256}
    signature = given | dict.fromkeys(fixed, "constexpr")
    names = roi_triton._pool.arg_names
    assert list(signature) == names
    sixteens = {
        (names.index(n),): [["tt.divisibility", 16]] for n in ("table", "pooled", "channels")
    }
    source = ASTSource(roi_triton._pool, signature, fixed, attrs=sixteens)
    built = triton.compile(source, GPUTarget("cuda", capability, 32), options={"num_warps": 1})
    assert built.asm["cubin"]
    assert built.asm["ptx"].count("ld.global.v4.b32") == 2**2 * 4  # 8 channels of each tap at once
