"""Are images and work kept whole or not at all, each where only its session finds it?"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from diffinst.serve.refusal import Refused
from diffinst.serve.sessions import Sessions

PIXELS = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)


def test_pixels_come_back_as_they_were(tmp_path: Path) -> None:
    sessions, session = Sessions(tmp_path, 5), Sessions.new_id()
    about = sessions.add(session, PIXELS, "a.png")
    assert np.array_equal(sessions.pixels(session, about.id), PIXELS)
    assert (about.height, about.width) == (64, 64) and sessions.images(session) == [about]
    sessions.remove(session, about.id)
    assert sessions.images(session) == [] and list(tmp_path.rglob("*.png")) == []


@pytest.mark.parametrize("session", [None, "", "x", "../" * 14 + "x", "a" * 43])
def test_unknown_sessions_hold_nothing(tmp_path: Path, session: str | None) -> None:
    sessions = Sessions(tmp_path, 5)
    about = sessions.add(Sessions.new_id(), PIXELS, "a.png")
    assert sessions.images(session) == []
    with pytest.raises(Refused) as refused:
        sessions.about(session, about.id)
    assert refused.value.status == 404


@pytest.mark.skipif(sys.platform == "win32", reason="has no limit on the size of files")
def test_where_nothing_can_be_written_nothing_is_left(tmp_path: Path) -> None:
    import resource

    sessions, session = Sessions(tmp_path, 5), Sessions.new_id()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))  # bytes: the image has 12,000
    try:
        with pytest.raises(Refused) as refused:
            sessions.add(session, PIXELS, "a.png")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert refused.value.status == 507 and sessions.images(session) == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
