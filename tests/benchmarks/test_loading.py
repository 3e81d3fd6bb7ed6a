"""Does the loading benchmark count every image once, and say what its numbers say?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from diffinst.datasets.load import load_split
from diffinst.datasets.synthetic import make_shapes


@pytest.fixture(scope="module")
def loading(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("loading")


def test_images_a_second(
    loading: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = load_split(make_shapes(tmp_path, train=3, val=0), "train")
    clock = iter([10.0, 12.0])
    monkeypatch.setattr(loading.time, "perf_counter", lambda: next(clock))
    assert loading.rate(split, "tiny", 0, 3) == 3 * loading.BATCH / 2


def test_the_table(loading: ModuleType, tmp_path: Path) -> None:
    rows = [{"data": "pets", "preset": "nano", "workers": 2, "rates": [3.0, 9.0, 5.0]}]
    assert loading.needed(tmp_path) is None
    seconds = {"training": {"diffinst training bf16": [3.0, 4.0, 9.0]}}
    (tmp_path / "speed-cpu.json").write_text(json.dumps(seconds))
    text = loading.table(rows, loading.needed(tmp_path))
    assert "| pets | nano | 2 | 5.0 | 3.0-9.0 |" in text
    assert "takes 0.50 images a second here." in text
