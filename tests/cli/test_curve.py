"""Does `diffinst curve` measure, draw and say which settings to choose from?"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")
Run = Callable[..., tuple[int, str, str]]


def test_a_table_files_and_going_on(
    diffinst: Run, model: Path, shapes: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    out = tmp_path / "curve"
    flags = ("--model", model, "--device", "cpu", "--limit", 1, "--proposals", 4, 6, "--out", out)
    code, text, err = diffinst("curve", shapes, *flags, "--steps", 1, "auto")
    assert code == 0 and "curve.json" in err
    rows = [line.split() for line in text.splitlines()[1:]]
    settings = {tuple(row[row[0] == "*" :][:3]) for row in rows}
    assert settings == {("ddim", s, p) for s in ("1", "auto") for p in ("4", "6")}
    assert rows[0][0] == "*"  # nothing is quicker than the first
    held = json.loads((out / "curve.json").read_text())["rows"]
    assert len(held) == 4 and {row["kind"] for row in held} == {"ddim"}
    found = {path.name for path in out.iterdir()}
    assert {"cells", "curve.json", "curve.csv", "curve.png"} <= found
    kept = {path: path.read_bytes() for path in out.glob("cells/*/predictions/*")}
    assert len(kept) == 4
    code, *_ = diffinst("curve", shapes, *flags, "--steps", 1, "auto", 2)
    assert code == 0 and all(path.read_bytes() == content for path, content in kept.items())
    assert len(json.loads((out / "curve.json").read_text())["rows"]) == 6


def test_without_matplotlib_the_table_alone(
    diffinst: Run, model: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden: Any = None  # an import of it fails from now on
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, hidden)
    flags = ("--model", model, "--device", "cpu", "--limit", 1, "--steps", 1, "--proposals", 4)
    code, text, err = diffinst("curve", shapes, *flags, "--out", tmp_path / "c")
    assert code == 0 and "ddim" in text
    assert "curve.png is missing" in err and "diffinst[plots]" in err
    assert not (tmp_path / "c" / "curve.png").exists()


def test_wrong_numbers_and_data_are_one_line(
    diffinst: Run, model: Path, shapes: Path, tmp_path: Path
) -> None:
    flags = ("--model", model, "--out", tmp_path / "c")
    for wrong in (("--steps", 0), ("--steps", "some"), ("--proposals", 1.5), ("--kind", "ddpm")):
        code, text, err = diffinst("curve", shapes, *flags, *wrong)
        assert code != 0 and wrong[0] in text + err
    code, _, err = diffinst("curve", tmp_path / "none", *flags)
    assert code == 1 and "none" in err
    assert not (tmp_path / "c").exists()


def test_out_that_is_a_file_is_refused_at_once(
    diffinst: Run, model: Path, shapes: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    code, _, err = diffinst("curve", shapes, "--model", model, "--out", tmp_path / "a.png")
    assert code != 0 and "a.png: is a file; results go into a folder" in " ".join(err.split())
