"""The running statistics of BatchNorm layers: what they are, and how a pass leaves them alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def running_statistics(network: nn.Module) -> list[Tensor]:
    """What BatchNorm layers in training mode count as images go through them."""
    learning = [norm for norm in _norms(network) if norm.training and norm.track_running_stats]
    return [buffer for norm in learning for buffer in norm.buffers()]


@contextmanager
def fixed_statistics(network: nn.Module) -> Iterator[None]:
    """BatchNorm layers normalise as in training but leave their running statistics alone."""
    learning = [norm for norm in _norms(network) if norm.training and norm.track_running_stats]
    try:
        for norm in learning:
            norm.track_running_stats = False
        yield
    finally:
        for norm in learning:
            norm.track_running_stats = True


def _norms(network: nn.Module) -> list[_BatchNorm]:
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]
