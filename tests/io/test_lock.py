"""A folder or a file is one program's alone as long as that runs."""

import errno
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from diffinst.io.lock import LOCK_FILE, alone_in, alone_with

fcntl = pytest.importorskip("fcntl", reason="tells how the operating system's locks behave")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_is_made_and_held_until_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with alone_in(folder):
        assert names(folder) == [LOCK_FILE]
        with pytest.raises(BlockingIOError, match=r"at work on .*b; wait"), alone_in(folder):
            pytest.fail("the block ran")
        with alone_in(tmp_path):  # another folder
            pass
    assert names(folder) == []
    with alone_in(folder):
        pass


def test_the_holder_is_named(tmp_path: Path) -> None:
    who = rf"process {os.getpid()} on {platform.node()}, since \d{{4}}-\d\d-\d\d .*"
    wrong = rf"is at work on {tmp_path}; wait until it has finished \({who}\)$"
    with alone_in(tmp_path):
        with pytest.raises(BlockingIOError, match=wrong), alone_in(tmp_path):
            pytest.fail("the block ran")
        with pytest.raises(BlockingIOError, match=wrong), alone_in(tmp_path):  # still
            pytest.fail("the block ran")
        (tmp_path / LOCK_FILE).write_bytes(b"\xff\0")
        with pytest.raises(BlockingIOError, match="another program is at work"), alone_in(tmp_path):
            pytest.fail("the block ran")


def test_a_failure_frees_it(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="half way"), alone_in(tmp_path):
        raise RuntimeError("half way")
    with alone_in(tmp_path):
        pass


def test_a_killed_program_frees_it(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from diffinst.io.lock import alone_in\n"
        "with alone_in(Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(BlockingIOError), alone_in(tmp_path):
            pytest.fail("the block ran")
        child.kill()
        assert child.wait(timeout=30) == -signal.SIGKILL
    with alone_in(tmp_path):
        pass
    assert names(tmp_path) == []


def test_a_file_is_held_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "a.part"
    with alone_with(file):
        assert names(tmp_path) == ["a.part.lock"]
        with pytest.raises(BlockingIOError, match=r"at work on .*a\.part; wait"), alone_with(file):
            pytest.fail("the block ran")
        with alone_with(tmp_path / "b.part"), alone_in(tmp_path):
            pass
    assert names(tmp_path) == []
    with alone_with(tmp_path / "new" / "a"):
        assert names(tmp_path) == ["new"]


def test_a_lock_file_that_a_holder_removed_meanwhile_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was opened before its holder removed and released it: another may lock the name anew."""
    flock = fcntl.flock

    def removed_meanwhile(handle: int, how: int) -> None:
        flock(handle, how)
        (tmp_path / LOCK_FILE).unlink(missing_ok=True)

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", removed_meanwhile)
        with pytest.raises(BlockingIOError), alone_in(tmp_path):
            pytest.fail("the block ran")
    with alone_in(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
def test_a_file_system_without_locks_is_used_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with alone_in(tmp_path):
        pass
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"), alone_in(tmp_path / "file" / "a"):
        pytest.fail("the block ran")
