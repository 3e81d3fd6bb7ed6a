"""Is a setting worth what was measured, and else by its number of boxes?"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from diffinst.inference.front import FRONT_FILE, Front, Measured
from diffinst.inference.predictor import DiffusionInst

ROWS = [
    {"kind": "search", "steps": 1, "proposals": 100, "mask/AP": 0.4},
    {"kind": "search", "steps": 1, "proposals": 400, "mask/AP": 0.6},
    {"kind": "search", "steps": 4, "proposals": 100, "mask/AP": 0.62},
    {"kind": "search", "steps": "auto", "proposals": 100, "mask/AP": 0.61},
    {"kind": "ddim", "steps": 2, "proposals": 100, "mask/AP": None},
]


def written(folder: Path, content: object) -> Path:
    (folder / FRONT_FILE).write_text(json.dumps(content))
    return folder


def test_between_and_beyond_what_was_measured(tmp_path: Path) -> None:
    front = Front.read(written(tmp_path, {"rows": ROWS}))
    assert len(front.rows) == 3  # neither auto nor what has no AP
    # 200 lies half way between 100 and 400 in their logarithms; 50 is half of 100, 900 as 400
    worth = front.worth("search", 1, [100, 200, 400, 50, 900])
    np.testing.assert_allclose(worth, [0.4, 0.5, 0.6, 0.2, 0.6])
    np.testing.assert_allclose(front.worth("search", 4, [100, 50]), [0.62, 0.31])
    assert front.steps("search", 8) == (1, 4) and front.steps("search", 3) == (1,)
    assert front.proposals("search", 400) == (100, 400) and front.proposals("search", 399) == (100,)


def test_the_rule_counts_boxes(tmp_path: Path) -> None:
    front = Front.read(tmp_path)  # no file
    assert front.proposals("ddim", 2000) == ()
    assert front == Front() and front.steps("ddim", 3) == (1, 2, 3)
    two, four = front.worth("ddim", 2, [200])[0], front.worth("ddim", 4, [100])[0]
    assert two == four == pytest.approx(0.02 * np.log(400))
    unknown = Front((Measured("search", 1, 100, 0.4),))
    assert unknown.steps("ddim", 2) == (1, 2)


def test_one_step_is_the_same_in_all_samplers() -> None:
    front = Front((Measured("search", 1, 100, 0.4), Measured("ddim", 4, 100, 0.5)))
    assert front.steps("ddim", 8) == (1, 4) and front.steps("search", 8) == (1,)
    assert front.worth("ddim", 1, [100])[0] == 0.4


@pytest.mark.parametrize(
    "content",
    [[], {"rows": [{"steps": 1}]}, {"rows": [{**ROWS[0], "proposals": "many"}]}, {"rows": 3}],
)
def test_another_file_of_that_name_is_refused(content: object, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"curve\.json does not hold what `diffinst curve` writes"):
        Front.read(written(tmp_path, content))


def test_it_is_read_with_the_weights(tiny: DiffusionInst, tmp_path: Path) -> None:
    folder = written(tiny.save_pretrained(tmp_path / "model"), {"rows": ROWS})
    model = DiffusionInst.from_pretrained(folder)
    assert len(model.front.rows) == 3
    assert model.optimize("fp32").front == model.front == model._runner().budget.front
