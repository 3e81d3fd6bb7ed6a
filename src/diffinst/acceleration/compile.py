"""The network's parts as compiled kernels, where torch can make them."""

from __future__ import annotations

import warnings
from functools import lru_cache

import torch

from diffinst.models.network import DiffusionInstNetwork


def compile_parts(network: DiffusionInstNetwork) -> bool:
    """Compile backbone, pyramid, mask branch and each decoder stage, in place, at their first call.

    All stages but the first share their kernels. Another image size or number of proposals
    compiles again; beyond eight variants of a part torch runs further ones uncompiled, so it pays
    for images of a few sizes. Box maths stays float32, whatever the precision.

    Args:
        network: Ready to predict.

    Returns:
        Whether it will be: without a C++ compiler (CPU) or Triton (GPU) the network stays as it
        is, and a warning says why.
    """
    problem = what_prevents(str(network.image_mean.device))
    if problem is not None:
        warnings.warn(f"not compiled: {problem}", stacklevel=3)
        return False
    for part in (network.backbone, network.fpn, network.mask_branch, *network.decoder.stages):
        part.compile()
    return True


@lru_cache
def what_prevents(device: str) -> str | None:
    """Why nothing can be compiled for a device; None: it can."""
    try:
        with torch.inference_mode():
            torch.compile(_anything)(torch.ones(8, device=device))
    except Exception as error:  # of the compiler, of many kinds
        first = str(error).strip().splitlines()
        return f"{type(error).__name__}: {first[0] if first else 'no reason given'}"
    return None


def _anything(x: torch.Tensor) -> torch.Tensor:
    return x.sin() + 1
