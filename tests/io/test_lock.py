"""Is a folder one program's alone, as long as that runs?"""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from diffinst.io.lock import alone_in

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
