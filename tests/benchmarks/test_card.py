"""Does the card keep rows of one kind of settings, and measure none twice?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from diffinst import DiffusionInst
from diffinst.datasets.synthetic import make_shapes


@pytest.fixture(scope="module")
def card(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("card")


def test_rows_are_kept_and_other_settings_refused(card: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    data = make_shapes(tmp_path / "shapes", train=1, val=1)
    model = DiffusionInst.from_preset("tiny").save_pretrained(tmp_path / "model")
    out, plot = tmp_path / "card.json", tmp_path / "steps.png"
    given = {"data": data, "model": str(model), "out": out, "plot": plot, "ddim": ("1x4",)}
    card.card(**given, search=("1x4",))
    first = json.loads(out.read_text())["rows"]
    assert [(r["sampler"], r["pair"]) for r in first] == [("search", "1x4"), ("ddim", "1x4")]
    card.card(**given, search=("1x4", "autox4"))
    rows = json.loads(out.read_text())["rows"]
    assert rows[:2] == first and [r["pair"] for r in rows[2:]] == ["autox4"]
    assert plot.stat().st_size > 1000
    with pytest.raises(ValueError, match=r"holds rows of mask_quality 0.0, not 2.0; give another"):
        card.card(**given, mask_quality=2.0)
