"""Does every command end with one line and the exit code that tells why?"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from diffinst.cli.ending import errors_as_lines, writing_into
from diffinst.datasets.synthetic import make_shapes
from diffinst.evaluation.store import Shard
from diffinst.results.instances import Instances

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")
Run = Callable[..., tuple[int, str, str]]
needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="Windows kills outright")


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("--size 3: give [two]"), "error: --size 3: give [two]\n"),
        (OSError("no number"), "error: no number\n"),
        (
            PermissionError(errno.EACCES, "Permission denied", "a/b"),
            "error: a/b: Permission denied",
        ),
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), "a/b: the disk (or your quota)"),
        (BlockingIOError(errno.EAGAIN, "another program is at work"), "error: another program is"),
    ],
)
def test_an_error_is_one_line(
    error: Exception, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end, errors_as_lines():
        raise error
    err = capsys.readouterr().err
    assert end.value.code == 1 and said in err and err.count("\n") == 1 and "[Errno" not in err


def test_our_own_mistakes_keep_their_traceback() -> None:
    with pytest.raises(AssertionError), errors_as_lines():
        raise AssertionError


@needs_signals
@pytest.mark.parametrize("breaks", [False, True])  # something on the way out
def test_sigterm_lets_go_of_everything(breaks: bool) -> None:
    before, closed = signal.getsignal(signal.SIGTERM), False

    @contextmanager
    def open_file() -> Iterator[None]:
        nonlocal closed
        try:
            yield
        finally:
            closed = True
            if breaks:
                raise ValueError("a worker is gone")

    with pytest.raises(SystemExit) as end, errors_as_lines(), open_file():
        os.kill(os.getpid(), signal.SIGTERM)
    assert end.value.code == 143 and closed
    assert signal.getsignal(signal.SIGTERM) is before


@needs_signals
def test_predict_keeps_what_is_done_at_sigterm(
    diffinst: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_shapes(tmp_path / "data", train=0, val=1, size=(48, 64))
    for name in "abc":
        shutil.copy(data / "val" / "000000.png", tmp_path / "data" / "val" / f"{name}.png")
    save, saved = Instances.save, 0

    def watched(self: Instances, *arguments: object, **named: object) -> object:
        nonlocal saved
        saved += 1
        if saved == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return save(self, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Instances, "save", watched)
    out = tmp_path / "out"
    code, _, err = diffinst("predict", data / "val", "--model", model, "--out", out)
    assert code == 143 and "Traceback" not in err
    assert len(json.loads((out / "index.json").read_text())["images"]) == 2
    assert (out / "results.json").is_file() and not list(out.rglob(".*"))


def test_a_full_disk_names_the_folder(tmp_path: Path) -> None:
    wrong = f"of {tmp_path} is full; free some space"
    with pytest.raises(OSError, match=wrong) as caught, writing_into(tmp_path):
        full()
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(OSError, match="No space left"), writing_into(None):
        full()
    with pytest.raises(PermissionError, match="no"), writing_into(tmp_path):
        raise PermissionError("no")


def test_what_a_killed_command_left_is_removed(tmp_path: Path) -> None:
    left = [tmp_path / part / ".x.0123abcd.tmp.json" for part in (".", "worst", "other")]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half of it")
    with writing_into(tmp_path, "worst"):
        assert [path.exists() for path in left] == [False, False, True]  # not what is another's
        with pytest.raises(BlockingIOError, match="at work"), writing_into(tmp_path):
            pytest.fail("the block ran")


def test_a_folder_that_stays_empty_is_not_left(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no"), writing_into(tmp_path / "new"):
        raise ValueError("no")
    assert not (tmp_path / "new").exists()


def test_an_evaluation_on_a_full_disk(
    diffinst: Run, model: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shard, "append", full)
    out = tmp_path / "eval"
    code, _, err = diffinst("eval", "--data", shapes, "--model", model, "--out", out)
    assert code == 1 and f"error: the disk (or your quota) of {out} is full; free some" in err
    assert "[Errno" not in err and "Traceback" not in err
