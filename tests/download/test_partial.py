"""A partial file is kept as far as it has arrived, by one program at a time."""

from __future__ import annotations

import errno
import hashlib
import os
from io import FileIO
from pathlib import Path

import pytest

from diffinst.download import partial
from diffinst.download.partial import Expected, PartialFile, Version, checksum_of

URL = "http://host/a.zip"
HELLO = "5d41402abc4b2a76b9719d911017c592"  # MD5 of "hello", as RFC 1321's md5 -s prints it


def want(checksum: str | None = None) -> Expected:
    return Expected(URL, checksum)


def test_checksum_of_known_texts(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    seen: list[tuple[int, int | None]] = []
    assert checksum_of(tmp_path / "a", "md5", lambda *at: seen.append(at)) == f"md5:{HELLO}"
    assert seen == [(5, 5)]
    (tmp_path / "a").write_bytes(b"")  # the empty text's SHA-256 begins e3b0c442
    assert checksum_of(tmp_path / "a", "sha256").startswith("sha256:e3b0c44298fc1c149afbf4c8")


def test_a_part_is_gone_on_with_by_the_next_one(tmp_path: Path) -> None:
    version = Version(URL, etag='"one"', total=5)
    with PartialFile.of(tmp_path / "a.zip", want(f"md5:{HELLO}"), None) as part:
        assert part.offset == 0 and part.version is None
        part.restart(version)
        part.append(b"hel")
    with PartialFile.of(tmp_path / "a.zip", want(f"md5:{HELLO}"), None) as part:
        assert (part.offset, part.reached, part.pieces) == (3, 3, True)
        assert part.version == version
        part.append(b"lo")
        assert part.checksum == f"md5:{HELLO}"
        part.finish(tmp_path / "a.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]
    assert (tmp_path / "a.zip").read_bytes() == b"hello"


def test_bytes_are_on_disk_as_soon_as_they_are_there(tmp_path: Path) -> None:
    with PartialFile.of(tmp_path / "a.zip", want(), None) as part:
        part.append(b"hel")
        assert part.path.read_bytes() == b"hel"


def test_bytes_of_a_second_program_are_not_given_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)  # a file system without locks
    path = tmp_path / "a.zip"
    with PartialFile.of(path, want(), None) as one, PartialFile.of(path, want(), None) as two:
        one.append(b"abc")
        two.append(b"abc")
        one.append(b"def")
        with pytest.raises(BlockingIOError, match=r"a\.zip\.part has 9 bytes, 6 were written"):
            one.finish(path)
        with pytest.raises(BlockingIOError, match="has 9 bytes, 3 were written"):
            two.finish(path)
    assert not path.exists()


def test_the_version_of_another_address_is_not_taken(tmp_path: Path) -> None:
    with PartialFile.of(tmp_path / "a.zip", want(), None) as part:
        part.restart(Version("http://mirror/a.zip", etag='"one"'))
        part.append(b"hel")
    with PartialFile.of(tmp_path / "a.zip", want(), None) as part:
        assert part.version is None and part.offset == 3 and not part.can_go_on


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (Version(URL), Version(URL), True),
        (Version(URL, etag='"a"', total=5), Version(URL, etag='"a"'), True),
        (Version(URL, etag='"a"'), Version(URL, etag='"b"'), False),
        (Version(URL, total=5), Version(URL, total=6), False),
    ],
)
def test_versions_that_may_be_the_same(one: Version, other: Version, same: bool) -> None:
    assert one.may_be(other) is other.may_be(one) is same


class FullDisk(FileIO):
    """A disk with room for 4 bytes; like the real one, it takes what fits before it refuses."""

    room = 4

    def write(self, data: memoryview) -> int:  # type: ignore[override]
        fits = self.room - os.fstat(self.fileno()).st_size
        if not fits:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data[:fits])


def test_a_full_disk_keeps_what_fitted_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checksum = f"md5:{HELLO}"
    monkeypatch.setattr(partial, "FileIO", FullDisk)
    message = r"cannot write .*a\.zip\.part: the disk .* is full; 4 bytes are kept there; free some"
    with PartialFile.of(tmp_path / "a.zip", want(checksum), None) as part:
        with pytest.raises(OSError, match=message) as raised:
            part.append(b"hello")
        assert part.checksum == f"md5:{hashlib.md5(b'hell').hexdigest()}"
    assert raised.value.errno == errno.ENOSPC
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip.part"]
    monkeypatch.setattr(FullDisk, "room", 100)
    with PartialFile.of(tmp_path / "a.zip", want(checksum), None) as part:
        part.append(b"o")
        assert part.checksum == checksum


def test_the_checksum_counts_anew_after_a_restart(tmp_path: Path) -> None:
    with PartialFile.of(tmp_path / "a.zip", want(f"md5:{HELLO}"), None) as part:
        part.append(b"other")
        assert part.checksum == f"md5:{hashlib.md5(b'other').hexdigest()}"
        part.restart(None)
        part.append(b"hello")
        assert part.checksum == f"md5:{HELLO}" and part.reached == 5


def test_an_empty_part_is_not_left_behind(tmp_path: Path) -> None:
    with PartialFile.of(tmp_path / "a.zip", want(), None) as part:
        part.restart(Version(URL))
    assert list(tmp_path.iterdir()) == []


def test_two_programs_do_not_write_one_part(tmp_path: Path) -> None:
    with PartialFile.of(tmp_path / "a.zip", want(), None) as part:
        part.append(b"hel")
        second = PartialFile.of(tmp_path / "a.zip", want(), None)
        message = r"another program is at work on .*a\.zip\.part"
        with pytest.raises(BlockingIOError, match=message), second:
            pytest.fail("the block ran")
        part.append(b"lo")
        assert part.path.read_bytes() == b"hello"
    with PartialFile.of(tmp_path / "a.zip", want(), None) as part:
        part.remove()
    assert list(tmp_path.iterdir()) == []
