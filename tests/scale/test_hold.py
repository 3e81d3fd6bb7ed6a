"""Do drivers of one folder keep away from each other, and slices of an array not?"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from diffinst.scale.hold import held

pytest.importorskip("fcntl", reason="tells how the operating system's locks behave")


def quiet(text: str) -> None:
    """Nothing is waited for here."""


def test_a_second_driver_is_refused_and_the_holder_named(tmp_path: Path) -> None:
    with held(tmp_path / "out", None, quiet) as prepared:
        prepared()
        for slice_ in (None, (1, 2)):
            said = rf"another program is at work on {tmp_path / 'out'}.*\(process {os.getpid()} on"
            with pytest.raises(BlockingIOError, match=said), held(tmp_path / "out", slice_, quiet):
                pytest.fail("the block ran")
    with held(tmp_path / "out", None, quiet):
        pass


def test_slices_work_side_by_side(tmp_path: Path) -> None:
    with held(tmp_path, (1, 2), quiet) as one:
        one()
        with held(tmp_path, (2, 2), quiet) as two:
            two()
            for again in ((1, 2), None):
                with (
                    pytest.raises(BlockingIOError, match=rf"slice-.-of-2.*process {os.getpid()}"),
                    held(tmp_path, again, quiet),
                ):
                    pytest.fail("the block ran")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_driver_left_half_written_is_removed(tmp_path: Path) -> None:
    left = [tmp_path / part / ".x.0123abcd.tmp.parquet" for part in (".", "parts")]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half of it")
    with held(tmp_path, (1, 1), quiet) as prepared:
        prepared()
        assert all(path.exists() for path in left)  # another slice may be writing it
    with held(tmp_path, None, quiet):
        assert not any(path.exists() for path in left)


def test_behind_an_address_nothing_is_held() -> None:
    with held(None, None, quiet) as one, held(None, None, quiet) as two:
        one()
        two()
