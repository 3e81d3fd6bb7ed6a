"""RoI features by what is fastest here: a kernel of ours on a GPU, or the weighted gather.

A kernel is taken only where it proves to compute the same, and faster, on the GPU in question.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from diffinst import kernels
from diffinst.kernels.gather import weighted_gather
from diffinst.ops import roi_align
from diffinst.ops.roi_align import assign_levels
from diffinst.structures import FIRST_LEVEL, Pyramid

RoIKernel: TypeAlias = Callable[..., Tensor]
"""`roi_triton.pool` on a device that has it."""

CHANNELS, BOXES, SIZE, SAMPLING = 256, 500, 7, 2  # the paper's
SIDES, PIXELS = (128, 64, 32, 16), 512  # of the probe's image
ROUNDS = 5
TOLERANCE = {torch.float32: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.1}  # for N(0, 1) features


def pool(
    pyramid: Pyramid, boxes: Float[Tensor, "B N 4"], size: int, sampling: int
) -> Float[Tensor, "B N {size*size} _"]:
    """`ops.roi_align.pool`.

    Args:
        pyramid: Of B images.
        boxes: (B, N, 4) xyxy pixels of the network input; gets no gradient.
        size: Bins per side.
        sampling: Bilinear samples per bin and axis.

    Returns:
        (B, N, size * size, D), bins row by row.

    Raises:
        ValueError: Boxes of another number of images than the pyramid's.
    """
    table = pyramid.table
    plain = table.requires_grad or not table.is_contiguous() or not kernels.enabled()
    if not plain and kernel_pays(table.device, table.dtype):
        return pool_by(_kernel(), pyramid, boxes, size, sampling)
    return roi_align.pool(pyramid, boxes, size, sampling, gather=weighted_gather)


def pool_by(kernel: RoIKernel, pyramid: Pyramid, boxes: Tensor, size: int, sampling: int) -> Tensor:
    """`pool` by a kernel; the table is contiguous and gets no gradient."""
    table, boxes = pyramid.table, boxes.detach().float()
    level = assign_levels(boxes, len(pyramid.shapes)) - FIRST_LEVEL
    flat, rows = table.flatten(0, 1), table.shape[1]
    return kernel(flat, boxes, level, *pyramid.levels, rows, size, sampling)


def _kernel() -> RoIKernel:
    from diffinst.kernels.roi_triton import pool_on_gpu

    return pool_on_gpu


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def kernel_pays(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernel is used for features of a device.

    Both ways are tried once on each GPU. Without a GPU, without Triton or where the gather is as
    fast, the gather stays; where the kernel fails or computes something else, with a warning.
    """
    if device.type != "cuda" or dtype not in TOLERANCE or not torch.cuda.is_available():
        return False
    return _tried(device, dtype)


@lru_cache
def _tried(device: torch.device, dtype: torch.dtype) -> bool:
    try:
        return proven(_kernel(), device, dtype)
    except ImportError:  # no Triton for this platform
        return False


@torch.inference_mode()
def proven(kernel: RoIKernel, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a kernel computes the same as the weighted gather and takes less time."""
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(1, CHANNELS, s, s, generator=generator).to(device, dtype) for s in SIDES]
    low = torch.rand(1, BOXES, 2, generator=generator) * PIXELS
    boxes = torch.cat([low, low + torch.rand(low.shape, generator=generator) * PIXELS], 2)
    boxes, pyramid = boxes.to(device), Pyramid.of(maps)

    def plain() -> Tensor:
        return roi_align.pool(pyramid, boxes, SIZE, SAMPLING, gather=weighted_gather)

    def fused() -> Tensor:
        return pool_by(kernel, pyramid, boxes, SIZE, SAMPLING)

    try:
        wanted, found = plain(), fused()
        away = float((wanted.float().flatten() - found.float().flatten()).abs().max())
    except Exception as error:  # of the compiler or the driver, of many kinds
        _warn(f"{type(error).__name__}: {error}")
        return False
    if not away <= TOLERANCE[dtype]:
        _warn(f"its features are up to {away:.2g} away from the plain ones")
        return False
    return _seconds(fused, device) < _seconds(plain, device)


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
