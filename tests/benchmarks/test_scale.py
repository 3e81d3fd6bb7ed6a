"""Does the benchmark of shards take all ways in turns, and compare a round with itself?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def scale(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("scale")


def test_rounds_are_compared_with_themselves(scale: ModuleType) -> None:
    assert scale.ratio([2.0, 9.0, 40.0], [1.0, 3.0, 20.0]) == 2  # of 2, 3 and 2


@pytest.mark.slow
def test_every_way_is_taken_each_round(scale: ModuleType) -> None:
    pytest.importorskip("pyarrow")
    found = scale.in_turns({"a": ("local", 1), "b": ("local", 2)}, 2, 2, 32, 4)
    assert {name: len(taken) for name, taken in found["seconds"].items()} == {"a": 2, "b": 2}
    for name in "ab":
        both = zip(found["seconds"][name], found["whole"][name], strict=True)
        assert all(0 < seconds < whole for seconds, whole in both)


@pytest.mark.slow
def test_the_network_alone_is_taken_beside_the_pool(scale: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    scale.rate(images=3, rounds=2, side=32, proposals=4, results=tmp_path)
    found = json.loads((tmp_path / "scale.json").read_text())["rate"]
    for name in ("reading", "network", "writing", "pool"):
        assert len(found[name]) == 2 and min(found[name]) > 0
    parts = zip(found["network"], found["pool"], strict=True)
    assert found["rate_of_the_network"] == scale.ratio(*map(list, zip(*parts, strict=True)))
