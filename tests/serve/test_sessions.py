"""Are images and work kept whole or not at all, each where only its session finds it?"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from diffinst.serve.refusal import Refused
from diffinst.serve.sessions import DAY, Sessions, bytes_in
from diffinst.serve.work import Object, Work

PIXELS = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)


def some(count: int) -> list[Object]:
    rle = {"size": [1, 1], "counts": "01"}
    return [Object(0, 0, 0.5, [0, 0, 1, 1], 1, rle) for _ in range(count)]  # type: ignore[arg-type]


def test_pixels_come_back_as_they_were(tmp_path: Path) -> None:
    sessions, session = Sessions(tmp_path, 5, 10**6), Sessions.new_id()
    about = sessions.add(session, PIXELS, "a.png")
    assert np.array_equal(sessions.pixels(session, about.id), PIXELS)
    assert (about.height, about.width) == (64, 64) and sessions.images(session) == [about]
    sessions.remove(session, about.id)
    assert sessions.images(session) == [] and list(tmp_path.rglob("*.png")) == []


def test_images_that_are_removed_meanwhile_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions, session = Sessions(tmp_path, 5, 10**6), Sessions.new_id()
    gone, half, there = (sessions.add(session, PIXELS, "a.png") for _ in range(3))
    listed = sessions.images(session)
    monkeypatch.setattr(sessions, "images", lambda session: listed)
    sessions.remove(session, gone.id)
    (sessions.file(session, half.id).with_name("work.json")).unlink()
    assert sessions.works(session) == [(there, Work())]


@pytest.mark.parametrize("session", [None, "", "x", "../" * 14 + "x", "a" * 43])
def test_unknown_sessions_hold_nothing(tmp_path: Path, session: str | None) -> None:
    sessions = Sessions(tmp_path, 5, 10**6)
    about = sessions.add(Sessions.new_id(), PIXELS, "a.png")
    assert sessions.images(session) == []
    with pytest.raises(Refused) as refused:
        sessions.about(session, about.id)
    assert refused.value.status == 404


@pytest.mark.skipif(sys.platform == "win32", reason="has no limit on the size of files")
def test_where_nothing_can_be_written_nothing_is_left(tmp_path: Path) -> None:
    import resource

    sessions, session = Sessions(tmp_path, 5, 10**6), Sessions.new_id()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))  # bytes: the image has 12,000
    try:
        with pytest.raises(Refused) as refused:
            sessions.add(session, PIXELS, "a.png")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert refused.value.status == 507 and sessions.images(session) == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_session_holds_no_more_bytes_than_it_may(tmp_path: Path) -> None:
    sessions, session = Sessions(tmp_path, 9, 20_000), Sessions.new_id()  # an image has 12,300
    about = sessions.add(session, PIXELS, "a.png")
    before = bytes_in(tmp_path)
    with pytest.raises(Refused, match=r"would hold 0\.0 MB .* allowed are 0\.0 MB") as refused:
        sessions.add(session, PIXELS, "b.png")
    assert refused.value.status == 413 and bytes_in(tmp_path) == before
    sessions.add(Sessions.new_id(), PIXELS, "theirs.png")  # each has room of its own
    (sessions.folder_of(session) / "more").write_bytes(bytes(20_000))

    def grown(work: Work) -> Work:
        return work.become([1], work.numbered(some(1)))

    with pytest.raises(Refused, match="remove images"):
        sessions.change(session, about.id, grown)
    assert sessions.change(session, about.id, lambda work: work.approved(0.5)).accepted
    sessions.remove(session, about.id)  # that always goes


def test_what_nobody_used_for_days_is_removed(tmp_path: Path) -> None:
    sessions, ids = Sessions(tmp_path, 5, 10**6), [Sessions.new_id() for _ in range(4)]
    old, seen, at_work, new = ids
    images = {one: sessions.add(one, PIXELS, "a.png").id for one in ids}
    (tmp_path / "not-ours").mkdir()
    for one in (old, seen, at_work):
        then = time.time() - 3 * DAY
        os.utime(sessions.folder_of(one), (then, then))
    os.utime(tmp_path / "not-ours", (0, 0))
    sessions.about(seen, images[seen])  # a use like any other
    busy = sessions.folder_of(at_work)
    assert sessions.remove_unused(0, lambda folder: False) == 0
    assert sessions.remove_unused(4, lambda folder: False) == 0
    assert sessions.remove_unused(2, lambda folder: folder == busy) == 1
    assert sessions.images(old) == [] and not sessions.folder_of(old).exists()
    assert all(len(sessions.images(one)) == 1 for one in (seen, at_work, new))
    assert (tmp_path / "not-ours").is_dir()
