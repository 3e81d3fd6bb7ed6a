"""Is the RoI kernel there, does it compute the same, and is it faster on this GPU?"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from diffinst.ops.roi_align import FeatureTable, RoIKernel

CHANNELS, BOXES, SIZE, SAMPLING = 256, 500, 7, 2  # the paper's
SIDES, PIXELS = (128, 64, 32, 16), 512  # of the probe's image
ROUNDS = 5
TOLERANCE = {torch.float32: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.1}  # for N(0, 1) features


@lru_cache
def roi_kernel(device: torch.device, dtype: torch.dtype) -> RoIKernel | None:
    """The kernel for features of a GPU, or None: use the weighted gather.

    Both are tried once on each device. Without a GPU, without Triton or where the gather is as
    fast, the gather stays; where the kernel fails or computes something else, with a warning.
    """
    if device.type != "cuda" or dtype not in TOLERANCE or not torch.cuda.is_available():
        return None
    try:
        from diffinst.kernels.roi_triton import pool_on_gpu
    except ImportError:  # no Triton for this platform
        return None
    return proven(pool_on_gpu, device, dtype)


@torch.inference_mode()
def proven(kernel: RoIKernel, device: torch.device, dtype: torch.dtype) -> RoIKernel | None:
    """The kernel, if it computes the same as the weighted gather and takes less time."""
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(1, CHANNELS, s, s, generator=generator).to(device, dtype) for s in SIDES]
    low = torch.rand(1, BOXES, 2, generator=generator) * PIXELS
    boxes = torch.cat([low, low + torch.rand(low.shape, generator=generator) * PIXELS], 2)
    boxes = boxes.to(device)
    plain, fused = FeatureTable(maps), FeatureTable(maps, kernel)
    try:
        wanted, found = (table.pool(boxes, SIZE, SAMPLING) for table in (plain, fused))
        away = float((wanted.float() - found.float()).abs().max())
    except Exception as error:  # of the compiler or the driver, of many kinds
        _warn(f"{type(error).__name__}: {error}")
        return None
    if not away <= TOLERANCE[dtype]:
        _warn(f"its features are up to {away:.2g} away from the plain ones")
        return None
    seconds = [_seconds(lambda t=t: t.pool(boxes, SIZE, SAMPLING), device) for t in (plain, fused)]  # type: ignore[misc]
    return kernel if seconds[1] < seconds[0] else None


def _warn(why: str) -> None:
    warnings.warn(f"the RoI kernel is not used: {why.splitlines()[0]}", stacklevel=4)


def _seconds(run: Callable[[], Tensor], device: torch.device) -> float:
    """Of the quickest of a few rounds; the device has nothing else to do."""
    best = float("inf")
    for _ in range(ROUNDS):
        _wait(device)
        begin = time.perf_counter()
        run()
        _wait(device)
        best = min(best, time.perf_counter() - begin)
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
