"""Files pass, with links to them; pipes and devices are named for what they are."""

import os
from pathlib import Path

import pytest

from diffinst.io.regular import check_regular


def test_files_pass(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    (tmp_path / "link").symlink_to(tmp_path / "a.txt")
    check_regular(tmp_path / "a.txt")
    check_regular(tmp_path / "link")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(OSError, match=rf"it is a pipe or a device, not a file: '{path}'"):
            check_regular(path)


def test_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        check_regular(tmp_path / "none")
