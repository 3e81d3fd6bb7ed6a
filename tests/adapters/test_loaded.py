"""Is a model loaded once, and a wrong name said?"""

from __future__ import annotations

from pathlib import Path

import pytest

from diffinst import DiffusionInst
from diffinst.adapters.loaded import loaded
from diffinst.weights.store import CheckpointError


def test_a_model_is_loaded_once(tiny: DiffusionInst, tmp_path: Path) -> None:
    folder = str(tiny.save_pretrained(tmp_path / "tiny"))
    assert loaded(folder, "cpu") is loaded(folder, "cpu")


def test_a_name_that_is_none_is_said() -> None:
    with pytest.raises(CheckpointError, match="no-such-model"):
        loaded("no-such-model")
