"""Is a folder one program's alone, as long as that runs?"""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from diffinst.io.lock import LOCK_FILE, alone_in, lock

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no such locks there")


def test_a_folder_is_made_and_held_until_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with alone_in(folder):
        assert list(folder.iterdir()) == []  # no lock file
        with pytest.raises(BlockingIOError, match=r"at work on .*b; wait"), alone_in(folder):
            pytest.fail("the block ran")
        with alone_in(tmp_path):  # another folder
            pass
    with alone_in(folder):
        pass


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


def test_without_fcntl_one_far_byte_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Windows' runtime does, as its documentation says: EACCES where the byte is taken."""
    held: set[tuple[int, int]] = set()

    def locking(handle: int, mode: int, count: int) -> None:
        assert (mode, count) == (2, 1)
        place = os.fstat(handle).st_ino, os.lseek(handle, 0, os.SEEK_CUR)
        if place in held:
            raise PermissionError(errno.EACCES, "Permission denied")
        held.add(place)

    missing: Any = None
    monkeypatch.setitem(sys.modules, "fcntl", missing)
    msvcrt: Any = SimpleNamespace(locking=locking, LK_NBLCK=2)
    monkeypatch.setitem(sys.modules, "msvcrt", msvcrt)

    path = tmp_path / "a.part"
    path.write_bytes(b"abc")
    with path.open("rb", buffering=0) as one, path.open("rb", buffering=0) as two:
        lock(one.fileno(), path)
        assert one.read() == b"abc"  # from where it was
        with pytest.raises(BlockingIOError, match=r"at work on .*a\.part; wait"):
            lock(two.fileno(), path)
    assert path.stat().st_size == 3 and all(at > 1 << 32 for _, at in held)

    folder = tmp_path / "folder"
    with alone_in(folder):
        assert [p.name for p in folder.iterdir()] == [LOCK_FILE]
    assert list(folder.iterdir()) == []
