"""Is a checkpoint whole or not there, and does a full disk say which disk?"""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import pytest
import torch

from diffinst.training.checkpoints import AtomicCheckpoints

OURS = {"diffinst": {"iteration": 3, "best": 0.25}}
STATE = {**OURS, "state_dict": {"a": torch.arange(5000.0)}, "step": 3, "rates": [1e-3, None]}
NEXT = {**OURS, "state_dict": {}, "step": 4}
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
WRITER = RuntimeError("[enforce fail at inline_container.cc:863] . unexpected pos 64 vs 0")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A checkpoint of before."""
    file = tmp_path / "checkpoints" / "last.ckpt"
    AtomicCheckpoints().save_checkpoint(STATE, file)
    return file


def test_what_is_written_is_read(path: Path) -> None:
    back = AtomicCheckpoints().load_checkpoint(path)
    assert torch.equal(back.pop("state_dict")["a"], STATE["state_dict"]["a"])  # type: ignore[index]
    assert back == {name: value for name, value in STATE.items() if name != "state_dict"}
    AtomicCheckpoints().save_checkpoint(NEXT, path)
    assert AtomicCheckpoints().load_checkpoint(path) == NEXT
    assert [p.name for p in path.parent.iterdir()] == ["last.ckpt"]


def full_disk(monkeypatch: pytest.MonkeyPatch, said: Exception) -> None:
    """torch's writer stops half-way, and so does everybody else."""

    def stops(_: object, file: Path) -> None:
        file.write_bytes(b"half of it")
        monkeypatch.setattr(Path, "open", full)
        raise said

    def full(*_: object, **__: object) -> None:
        raise FULL

    monkeypatch.setattr(torch, "save", stops)


@pytest.mark.parametrize("said", [FULL, WRITER])
def test_a_full_disk_leaves_the_last_one(
    path: Path, said: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        full_disk(patch, said)
        wrong = (
            rf"cannot write last\.ckpt in {path.parent}: the disk .* is full; the previous file is"
        )
        with pytest.raises(OSError, match=wrong) as caught:
            AtomicCheckpoints().save_checkpoint(NEXT, path)
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == before and len(list(path.parent.iterdir())) == 1
    assert AtomicCheckpoints().load_checkpoint(path)["step"] == 3


def test_the_first_one_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full_disk(monkeypatch, FULL)
    with pytest.raises(OSError, match="no partial file is left"):
        AtomicCheckpoints().save_checkpoint(STATE, tmp_path / "new" / "last.ckpt")
    assert not list((tmp_path / "new").iterdir())


def test_a_writer_that_fails_otherwise(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stops(*_: object) -> None:
        raise WRITER

    before = path.read_bytes()
    monkeypatch.setattr(torch, "save", stops)
    with pytest.raises(OSError, match=rf"cannot write {path}: .*unexpected pos") as caught:
        AtomicCheckpoints().save_checkpoint(NEXT, path)
    assert caught.value.errno is None  # not taken for a full disk
    assert path.read_bytes() == before and len(list(path.parent.iterdir())) == 1


@pytest.mark.parametrize("length", [0, 1, 100, 10_000, -1])
def test_a_cut_off_file_is_named(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])
    wrong = rf"{path} is no whole checkpoint .*start again without --resume"
    with pytest.raises(ValueError, match=f"(?s){wrong}"):
        AtomicCheckpoints().load_checkpoint(path)


class Dangerous:
    """Makes a file when it is read."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("content", [b"not a checkpoint", b"PK\x03\x04 nor a zip"])
def test_other_files_are_named(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is no whole checkpoint"):
        AtomicCheckpoints().load_checkpoint(path)


@pytest.mark.parametrize(
    "content", [{"model": {"a": torch.zeros(2)}}, {"state_dict": {}, "epoch": 1}, [1, 2]]
)
def test_a_whole_one_of_another_program_is_named(path: Path, content: object) -> None:
    torch.save(content, path)
    with pytest.raises(ValueError, match=f"^{path} is no checkpoint of a diffinst run; put the"):
        AtomicCheckpoints().load_checkpoint(path)


def test_nothing_in_it_is_executed(path: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    torch.save({"state": Dangerous(made)}, path)
    with pytest.raises(ValueError, match="is no whole checkpoint"):
        AtomicCheckpoints().load_checkpoint(path)
    path.write_bytes(pickle.dumps(Dangerous(made)))
    with pytest.raises(ValueError, match="is no whole checkpoint"):
        AtomicCheckpoints().load_checkpoint(path)
    assert not made.exists()


def test_a_missing_one(path: Path) -> None:
    path.unlink()
    AtomicCheckpoints().remove_checkpoint(path)
    with pytest.raises(FileNotFoundError, match=r"last\.ckpt"):
        AtomicCheckpoints().load_checkpoint(path)


def test_removal(path: Path) -> None:
    AtomicCheckpoints().remove_checkpoint(str(path))
    assert not path.exists()
