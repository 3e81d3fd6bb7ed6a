"""Does who names an unfinished run, or its checkpoint, learn what to give instead?"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from diffinst.weights import store
from diffinst.weights.foreign import ConvertError, read_foreign
from diffinst.weights.runs import BEST, CHECKPOINT


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that was stopped: no model yet."""
    (tmp_path / CHECKPOINT).parent.mkdir()
    torch.save({"diffinst": {}, "state_dict": {}}, tmp_path / CHECKPOINT)
    return tmp_path


def with_model(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / store.WEIGHTS_FILE).touch()
    return folder


def test_a_run_without_a_model_names_resume_and_the_best_so_far(run: Path) -> None:
    wrong = f"{run} holds no .* `diffinst train --data DATA --out {run} --resume` goes on"
    with pytest.raises(store.CheckpointError, match=wrong) as caught:
        store.load(run)
    assert BEST not in str(caught.value)
    best = with_model(run / BEST)
    with pytest.raises(store.CheckpointError, match=f"best model so far is {best}, and `diffinst"):
        store.load(run)


def test_an_empty_folder_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(store.CheckpointError, match="holds no config") as caught:
        store.load(tmp_path)
    assert "--resume" not in str(caught.value)


def test_a_checkpoint_is_no_model_and_no_official_file(run: Path) -> None:
    file = run / CHECKPOINT
    said = re.escape(
        f"{file} is a training checkpoint and no model. It is a run that has not ended"
    )
    with pytest.raises(store.CheckpointError, match=said):
        store.load(file)
    with pytest.raises(ConvertError, match=said):
        read_foreign(file)
    best = with_model(run / BEST)
    with_model(run)
    said = re.escape(f"{file} is a training checkpoint; its run's model is {best} or {run}: give")
    for read, kind in ((store.load, store.CheckpointError), (read_foreign, ConvertError)):
        with pytest.raises(kind, match=said):
            read(file)


def test_a_renamed_checkpoint_is_known_by_what_it_holds(run: Path) -> None:
    file = (run / CHECKPOINT).rename(run / "weights.pth")
    with pytest.raises(ConvertError, match="is a training checkpoint"):
        read_foreign(file)
