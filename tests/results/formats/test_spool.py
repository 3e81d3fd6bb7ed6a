"""Are records kept whole, and nothing else?"""

from __future__ import annotations

import errno
import io
from pathlib import Path

import pytest

from diffinst.results.formats.spool import Spool


def test_records_come_back_and_more_may_follow(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "new")
    spool.add("a")
    for expected in ("a", "a"):
        out = io.BytesIO()
        spool.copy_to(out)
        assert out.getvalue().decode() == expected
    spool.add("ü\udcff")
    out = io.BytesIO()
    spool.copy_to(out)
    assert out.getvalue() == b"a\xc3\xbc\\udcff"
    assert spool.count == 2


def test_a_torn_record_is_not_there(tmp_path: Path) -> None:
    class Full(io.BytesIO):
        def write(self, content: object, /) -> int:
            assert isinstance(content, bytes)
            super().write(content[:2])
            if len(content) > 2:
                raise OSError(errno.ENOSPC, "full")
            return len(content)

    spool = Spool(tmp_path)
    spool._file = Full()
    spool.add("ab")
    with pytest.raises(OSError, match="full"):
        spool.add("cde")
    out = io.BytesIO()
    spool.copy_to(out)
    assert (out.getvalue(), spool.count) == (b"ab", 1)
