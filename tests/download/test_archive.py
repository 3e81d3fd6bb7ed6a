"""An archive is unpacked below its folder alone, completely or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from diffinst.download.archive import ArchiveError, unpack

CONTENT = {
    "val/": b"",
    "val/a.txt": b"first",
    "val/sub/b.txt": b"second" * 100,
    "val/empty/": b"",
    "other/c.txt": b"third",
}


def packed(path: Path, content: Mapping[str, bytes] = CONTENT) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, value in content.items():
            file.writestr(name, value)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return packed(tmp_path / "a.zip")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out" / "data"


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_all_of_it(file: Path, target: Path) -> None:
    seen: list[tuple[int, int]] = []
    assert unpack(file, target, progress=lambda *at: seen.append(at)) == target
    assert files(target) == {name: value for name, value in CONTENT.items() if name[-1] != "/"}
    assert (target / "val" / "empty").is_dir()
    assert [path.name for path in target.parent.iterdir()] == ["data"]
    assert seen[-1] == (610, 610)  # 5 + 600 + 5


@pytest.mark.parametrize("member", ["val", "val/"])
def test_a_folder_of_it(file: Path, target: Path, member: str) -> None:
    seen: list[tuple[int, int]] = []
    unpack(file, target, member=member, progress=lambda *at: seen.append(at))
    assert files(target) == {"a.txt": b"first", "sub/b.txt": b"second" * 100}
    assert seen[0] == (0, 605) and seen[-1] == (605, 605) and seen == sorted(seen)


def test_a_file_of_it(file: Path, target: Path) -> None:
    unpack(file, target, member="val/a.txt")
    assert target.read_bytes() == b"first"


def test_an_empty_file_and_an_empty_folder(tmp_path: Path) -> None:
    file = packed(tmp_path / "a.zip", {"e.txt": b"", "d/": b""})
    assert unpack(file, tmp_path / "e", member="e.txt").read_bytes() == b""
    assert list(unpack(file, tmp_path / "d", member="d").iterdir()) == []


def test_what_is_not_in_it(file: Path, target: Path) -> None:
    message = r"no 'train' in it; it holds other, val; is it the right archive\?"
    with pytest.raises(ArchiveError, match=message):
        unpack(file, target, member="train")
    with pytest.raises(ArchiveError, match="no 'va' in it"):  # a beginning is not the name
        unpack(file, target, member="va")
    with pytest.raises(ArchiveError, match="it holds nothing"):
        unpack(packed(file.with_name("empty.zip"), {}), target)
    assert not target.parent.exists()


def test_what_exists_is_not_touched(file: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(FileExistsError, match="it exists; move it away first"):
        unpack(file, tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize(
    "name",
    [
        "../evil.txt",
        "val/../../evil.txt",
        "/evil.txt",
        "//host/evil.txt",
        "..\\evil.txt",
        "C:\\evil.txt",
        "C:evil.txt",
        "val/./evil.txt",
        "val//evil.txt",
        "evil.txt\0.jpg",
    ],
)
def test_names_that_lead_outside(tmp_path: Path, target: Path, name: str) -> None:
    file = tmp_path / "a.zip"
    with zipfile.ZipFile(file, "w") as content:
        content.writestr("val/a.txt", b"first")
        info = zipfile.ZipInfo("placeholder")
        info.filename = info.orig_filename = name  # its constructor would tidy the name
        content.writestr(info, b"evil")
    with pytest.raises(ArchiveError, match="may lead outside the folder"):
        unpack(file, target, member="val")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_links_are_refused(tmp_path: Path, target: Path) -> None:
    file = tmp_path / "a.zip"
    with zipfile.ZipFile(file, "w") as content:
        link = zipfile.ZipInfo("val")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        content.writestr(link, "/etc")
        content.writestr("val/passwd", b"evil")
    with pytest.raises(ArchiveError, match="'val' in it is a link"):
        unpack(file, target)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_one_name_for_two_files(tmp_path: Path, target: Path) -> None:
    file = packed(tmp_path / "a.zip", {"A.txt": b"1", "a.txt": b"2"})
    with pytest.raises(ArchiveError, match=r"holds 'a\.txt' twice"):
        unpack(file, target)


def test_encrypted_and_unknown_kinds(tmp_path: Path, target: Path) -> None:
    file = packed(tmp_path / "a.zip", {"a.txt": b"first"})
    data = bytearray(file.read_bytes())
    entry = data.rindex(b"PK\x01\x02")  # the central directory's: flags at 8, method at 10
    data[entry + 8] |= 1
    file.write_bytes(data)
    with pytest.raises(ArchiveError, match="it is encrypted; unpack it with another program"):
        unpack(file, target)
    data[entry + 8] &= ~1
    data[entry + 10] = 99
    file.write_bytes(data)
    with pytest.raises(ArchiveError, match=r"not supported.*; unpack it with another program"):
        unpack(file, target)


@pytest.mark.parametrize("damage", ["cut", "no zip", "empty"])
def test_a_broken_archive(file: Path, target: Path, damage: str) -> None:
    data = file.read_bytes()
    file.write_bytes({"cut": data[:-30], "no zip": b"<html>" * 50, "empty": b""}[damage])
    with pytest.raises(ArchiveError, match=r"a\.zip: damaged, or no zip archive \(.*remove it"):
        unpack(file, target)
    assert not target.exists()


def test_damage_in_the_middle_leaves_nothing_under_the_final_name(
    tmp_path: Path, target: Path
) -> None:
    file = tmp_path / "a.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as content:
        content.writestr("a.txt", b"first")
        content.writestr("b.txt", b"second")
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b"second", b"secnod"))
    with pytest.raises(ArchiveError, match=r"damaged.*Bad CRC-32 for file 'b\.txt'"):
        unpack(file, target)
    assert not target.exists()
    file.write_bytes(whole)
    unpack(file, target)
    assert files(target) == {"a.txt": b"first", "b.txt": b"second"}


def test_an_interrupted_run_is_gone_on_with(file: Path, target: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done >= 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack(file, target, progress=stop)
    assert not target.exists()
    left = target.with_name(".data.unpacking") / "val" / "a.txt"
    os.utime(left, (1, 1))
    half = left.parent / "sub" / "b.txt"
    half.parent.mkdir()
    half.write_bytes(b"sec")  # as a killed program leaves it
    unpack(file, target)
    assert files(target / "val") == {"a.txt": b"first", "sub/b.txt": b"second" * 100}
    assert (target / "val" / "a.txt").stat().st_mtime == 1  # not written again


def test_what_was_left_is_not_believed_by_its_size(file: Path, target: Path) -> None:
    left = target.with_name(".data.unpacking") / "a.txt"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"wrong")
    unpack(file, target, member="val")
    assert (target / "a.txt").read_bytes() == b"first"


def test_what_another_archive_left_is_removed(file: Path, target: Path) -> None:
    left = target.with_name(".data.unpacking")
    (left / "val" / "old" / "sub").mkdir(parents=True)
    (left / "old.txt").write_bytes(b"old")
    (left / "val" / "old.txt").write_bytes(b"old")
    (left / "val" / "old" / "sub" / "c.txt").write_bytes(b"old")
    outside = target.parent / "outside"
    outside.mkdir()
    (outside / "kept.txt").write_bytes(b"kept")
    (left / "val" / "link").symlink_to(outside, target_is_directory=True)
    unpack(file, target, member="val")
    assert files(target) == {"a.txt": b"first", "sub/b.txt": b"second" * 100}
    assert {p.name for p in target.iterdir()} == {"a.txt", "sub", "empty"}
    assert (outside / "kept.txt").read_bytes() == b"kept"


def test_room_is_checked_first(file: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 100))
    with pytest.raises(
        OSError, match=r"unpacking .*a\.zip needs 605 B in .*, where 100 B are free"
    ):
        unpack(file, target, member="val")
    assert not target.parent.exists()
    unpack(file, target, member="val/a.txt")  # 5 B
    assert target.read_bytes() == b"first"


def test_a_disk_that_fills_up(file: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    message = r"cannot write .*: the disk .* is full; what is unpacked stays in .*unpacking; free s"
    with pytest.raises(OSError, match=message) as raised:
        unpack(file, target)
    assert raised.value.errno == errno.ENOSPC and not target.exists()
    monkeypatch.undo()
    unpack(file, target)
    assert (target / "val" / "a.txt").read_bytes() == b"first"
