"""Is a device that is not there refused by name?"""

from __future__ import annotations

import pytest
import torch

from diffinst.cli.options import usable_device


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_is_the_default_and_every_one_has_a_number() -> None:
    assert usable_device(None) == "cuda"
    assert [usable_device(name) for name in ("cpu", "cuda", "cuda:1")] == ["cpu", "cuda", "cuda:1"]


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("name", ["cuda:2", "cuda:x", "tpu", ""])
def test_others_are_refused_with_what_there_is(name: str) -> None:
    with pytest.raises(ValueError, match=f"^--device {name}: .*cpu, cuda, cuda:0, cuda:1$"):
        usable_device(name)


def test_without_a_gpu_it_is_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert usable_device(None) == "cpu"
    with pytest.raises(ValueError, match=r"there is cpu$"):
        usable_device("cuda:0")
