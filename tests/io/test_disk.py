"""A lack of room is noticed, and said in figures a person can read."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from diffinst.io.disk import check_space, free_space, readable, writing


@pytest.fixture
def small_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """1.5 MB are free, wherever."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 1_500_000))


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),  # rather than 1000.0 kB
        (19_336_861_798, "19.3 GB"),
        (5 * 10**15, "5000.0 TB"),
    ],
)
def test_readable(count: int, text: str) -> None:
    assert readable(count) == text


def test_room_is_asked_for_where_the_folder_would_be_made(tmp_path: Path) -> None:
    assert free_space(tmp_path / "not" / "yet") > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("small_disk")
def test_what_fits_and_what_does_not(tmp_path: Path) -> None:
    check_space(tmp_path, 1_500_000, "it")
    with pytest.raises(OSError, match="where 1") as raised:
        check_space(tmp_path / "a", 4_000_000, "unpacking a.zip")
    assert raised.value.errno == errno.ENOSPC
    assert raised.value.strerror == (
        f"unpacking a.zip needs 4.0 MB in {tmp_path / 'a'}, where 1.5 MB are free; free 2.5 MB "
        "there, or choose another folder"
    )


def test_a_disk_that_is_full_is_explained_once() -> None:
    explained = "cannot write a: the disk .* is full; nothing is left; free some space there, or"
    with (
        pytest.raises(OSError, match=explained) as raised,
        writing("b"),
        writing("a", "nothing is left"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert raised.value.errno == errno.ENOSPC


def test_other_errors_pass() -> None:
    with pytest.raises(FileNotFoundError, match="no such thing"), writing("a"):
        raise FileNotFoundError(errno.ENOENT, "no such thing")
