"""Do the examples in docstrings give what they say?"""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "src"
FILES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py") if ">>>" in path.read_text())

SKIPPED = {  # all their examples need data or a network, and say so
    "diffinst/download/archive.py",
    "diffinst/download/fetch.py",
    "diffinst/evaluation/evaluate.py",
    "diffinst/results/labels.py",
    "diffinst/training/train.py",
}


@pytest.mark.parametrize("file", FILES, ids=str)
def test_examples_run(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # some write files
    module = importlib.import_module(".".join(file.with_suffix("").parts).removesuffix(".__init__"))
    result = doctest.testmod(module)
    assert not result.failed
    assert result.attempted or str(file) in SKIPPED
