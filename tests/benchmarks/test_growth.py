"""Does the plot of growing cost find the lines that its numbers lie on?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

pytest.importorskip("matplotlib", reason="matplotlib is not installed")


@pytest.fixture(scope="module")
def growth(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("growth")


def test_lines_are_found_and_drawn(
    growth: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {
        "seconds": {
            "steps": {n: [1 + 0.5 * n, 1 + 0.5 * n, 9.0] for n in growth.STEPS},
            "proposals": {n: [1 + 0.002 * n] for n in growth.PROPOSALS},
            "kept": {n: [2.0] for n in growth.KEPT},
        },
        "decoder_pass": [0.4, 0.5, 0.6],
    }
    (tmp_path / "growth.json").write_text(json.dumps(content))
    growth.plot(results=tmp_path, out=tmp_path / "growth.png")
    said = capsys.readouterr().out
    assert "steps: 1.000 s + 0.50000 s each, off by 0.0% at most" in said
    assert "proposals: 1.000 s + 0.00200 s each" in said and "kept: 2.000 s" in said
    assert "decoder pass: 0.500 s" in said
    assert Image.open(tmp_path / "growth.png").size[0] > 500


def test_everyone_has_as_many_turns(growth: ModuleType) -> None:
    order: list[str] = []
    runs = {(name, 1): (lambda name=name: order.append(name)) for name in "ab"}
    seconds = growth.race(runs, 2)
    assert order == list("ababab") and [len(s) for s in seconds.values()] == [2, 2]
