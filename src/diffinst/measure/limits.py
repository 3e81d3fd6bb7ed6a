"""How fast this machine could be at best: measured peaks, and what counted work takes at them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from diffinst.kernels.linear import linear

ROUNDS = 5
COPIED = 2**26  # bytes
CONVOLUTIONS = (
    "convolution",
    "_convolution",
    "mkldnn_convolution",
    "_convolution_pointwise",
    "cudnn_convolution",
    "convolution_backward",
)


@dataclass(frozen=True)
class Limits:
    """The best of a few shapes that the network has, floating-point operations a second.

    Attributes:
        convolution: 3x3 convolutions, FLOP/s.
        matmul: Matrix products, FLOP/s.
        bandwidth: Copying memory, bytes read and written a second.
    """

    convolution: float
    matmul: float
    bandwidth: float

    def floor(self, work: Work) -> float:
        """Seconds that the counted work takes at these peaks, everything else being free."""
        return work.convolution / self.convolution + work.matmul / self.matmul


@dataclass(frozen=True)
class Work:
    """Floating-point operations (a multiplication and an addition are two).

    Attributes:
        convolution: In convolutions.
        matmul: In matrix products, and in attention where torch counts its kernel (not on CPUs).
    """

    convolution: float
    matmul: float


def _linear_flops(x: Sequence[int], weight: Sequence[int], *_: object, **__: object) -> int:
    """From the shapes of a layer's input and weights."""
    return 2 * math.prod(x) * weight[0]


def _convolution_flops(
    x: Sequence[int], weight: Sequence[int], *_: object, out_shape: Sequence[int], **__: object
) -> int:
    """From the shapes of a convolution's weights and output."""
    return 2 * math.prod(out_shape) * math.prod(weight[1:])


_UNCOUNTED: dict[Any, Any] = {  # by torch
    operator: flops
    for operator, flops in (
        (torch.ops.diffinst.linear, _linear_flops),
        (getattr(torch.ops.mkldnn, "_linear_pointwise", None), _linear_flops),
        (getattr(torch.ops.mkldnn, "_convolution_pointwise", None), _convolution_flops),
    )
    if operator is not None
}


def count(run: Callable[[], object]) -> Work:
    """Floating-point operations of a call, counted by shape."""
    with FlopCounterMode(display=False, custom_mapping=_UNCOUNTED) as counter:
        run()
    total = {str(op): flops for op, flops in counter.get_flop_counts().get("Global", {}).items()}
    convolution = sum(f for op, f in total.items() if op.rpartition(".")[2] in CONVOLUTIONS)
    return Work(float(convolution), float(sum(total.values()) - convolution))


@torch.inference_mode()
def measure_limits(device: torch.device, dtype: torch.dtype) -> Limits:
    """Peaks of a device, in a fraction of a second on most."""
    layout = torch.channels_last
    convolutions = []
    for channels, height, width in ((64, 200, 304), (128, 200, 304), (256, 100, 152)):
        maps = torch.ones(1, channels, height, width, dtype=dtype, device=device)
        maps = maps.to(memory_format=layout)
        kernel = torch.ones(channels, channels, 3, 3, dtype=dtype, device=device)
        kernel = kernel.to(memory_format=layout)
        flops = 2 * 9 * channels**2 * height * width
        seconds = _quickest(lambda m=maps, k=kernel: F.conv2d(m, k, padding=1), device)  # type: ignore[misc]
        convolutions.append(flops / seconds)
    products = []
    for rows, inner, columns in ((500, 256, 32768), (500, 12544, 256), (2048, 2048, 2048)):
        a = torch.ones(rows, inner, dtype=dtype, device=device)
        b = torch.ones(columns, inner, dtype=dtype, device=device)
        seconds = _quickest(lambda a=a, b=b: linear(a, b, None), device)  # type: ignore[misc]
        products.append(2 * rows * inner * columns / seconds)
    source = torch.ones(COPIED, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copying = _quickest(lambda: target.copy_(source), device)
    return Limits(max(convolutions), max(products), 2 * COPIED / copying)


def _quickest(run: Callable[[], object], device: torch.device) -> float:
    seconds = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - begin)
    return min(seconds)
