"""Do peers end with masks, where their package is installed?"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch


@pytest.fixture(scope="module")
def module(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("peers")


def test_masks_have_the_size_of_the_image(module: ModuleType) -> None:
    pytest.importorskip("transformers", reason="the peer's package is not installed")
    (make,) = module.PEERS.values()
    masks = make((64, 96), torch.device("cpu"))()
    assert (masks.shape, masks.dtype) == ((100, 64, 96), torch.bool)
