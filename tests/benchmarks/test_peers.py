"""Do peers run along where their package is installed, and are they missed nowhere else?"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch


@pytest.fixture(scope="module")
def module(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("peers")


def test_without_their_package_there_are_none(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert module.peers((64, 96), torch.device("cpu")) == {}


def test_masks_have_the_size_of_the_picture(module: ModuleType) -> None:
    pytest.importorskip("transformers", reason="the peer's package is not installed")
    (run,) = module.peers((64, 96), torch.device("cpu")).values()
    masks = run()
    assert (masks.shape, masks.dtype) == ((100, 64, 96), torch.bool)
