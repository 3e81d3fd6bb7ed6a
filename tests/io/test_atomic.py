"""A file is replaced completely or not at all, whatever happens while it is written."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from diffinst.io.atomic import atomic_path, remove_unfinished, write_bytes, write_json, write_text


@pytest.fixture
def previous(tmp_path: Path) -> Path:
    """A file that was there before, alone in its folder."""
    path = tmp_path / "scores.json"
    path.write_text("before", encoding="utf-8")
    return path


def assert_untouched(previous: Path) -> None:
    assert previous.read_text(encoding="utf-8") == "before"
    assert list(previous.parent.iterdir()) == [previous]


def fail_half_way(path: Path, error: BaseException) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("aft", encoding="utf-8")
        raise error


def test_file_is_replaced_when_the_block_succeeds(previous: Path) -> None:
    with atomic_path(previous) as temporary:
        temporary.write_text("after", encoding="utf-8")
        assert previous.read_text(encoding="utf-8") == "before"
    assert previous.read_text(encoding="utf-8") == "after"
    assert list(previous.parent.iterdir()) == [previous]


def test_temporary_file_is_hidden_beside_the_target_with_its_suffix(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.tar.gz") as temporary:
        assert temporary.parent == tmp_path.resolve()
        assert temporary.name.startswith(".a.tar.")
        assert temporary.suffix == ".gz"
        assert not temporary.exists()
        temporary.touch()


def test_parents_are_created(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "c.txt", "text")
    assert (tmp_path / "a" / "b" / "c.txt").read_text(encoding="utf-8") == "text"


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127, "a." + "s" * 250])
def test_long_names(tmp_path: Path, name: str) -> None:
    write_text(tmp_path / name, "text")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_text("a.txt", "text")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "text"


def test_link_stays_and_its_file_is_replaced(previous: Path, tmp_path: Path) -> None:
    link = tmp_path / "latest.json"
    link.symlink_to(previous.name)
    write_text(link, "after")
    assert link.is_symlink()
    assert previous.read_text(encoding="utf-8") == "after"


def test_permissions_are_those_of_a_plain_new_file(tmp_path: Path) -> None:
    write_text(tmp_path / "atomic", "text")
    (tmp_path / "plain").write_text("text", encoding="utf-8")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_previous_file_survives_an_exception(previous: Path, error: type[BaseException]) -> None:
    with pytest.raises(error, match="half way"):
        fail_half_way(previous, error("half way"))
    assert_untouched(previous)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_keeps_the_previous_file_and_says_so(previous: Path, number: int) -> None:
    with pytest.raises(OSError, match="is full") as raised:
        fail_half_way(previous, OSError(number, os.strerror(number)))
    assert raised.value.errno == number
    assert raised.value.strerror == (
        f"cannot write scores.json in {previous.parent.resolve()}: the disk (or your quota) is "
        "full; the previous file is intact; free some space there, or choose another folder"
    )
    assert_untouched(previous)


def test_full_disk_without_a_previous_file(tmp_path: Path) -> None:
    message = r"cannot write new\.json .*; no partial file is left; free some space"
    with pytest.raises(OSError, match=message):
        fail_half_way(tmp_path / "new.json", OSError(errno.ENOSPC, "No space left on device"))
    assert list(tmp_path.iterdir()) == []


def test_forbidden_folder_is_explained(previous: Path) -> None:
    message = "scores.json in .*: Permission denied; the previous file is intact; check its perm"
    with pytest.raises(PermissionError, match=message), atomic_path(previous) as temporary:
        raise PermissionError(errno.EACCES, "Permission denied", str(temporary))
    assert_untouched(previous)


def test_other_errors_of_the_block_stay_as_they_are(previous: Path) -> None:
    with pytest.raises(OSError, match="elsewhere") as raised, atomic_path(previous):
        raise PermissionError(errno.EACCES, "Permission denied", "elsewhere")
    assert raised.value.filename == "elsewhere"
    assert_untouched(previous)


def test_previous_file_survives_a_killed_process(previous: Path) -> None:
    code = (
        "import sys, time\n"
        "from diffinst.io.atomic import atomic_path\n"
        "with atomic_path(sys.argv[1]) as temporary, open(temporary, 'w') as file:\n"
        "    file.write('aft'); file.flush()\n"
        "    print('half way', flush=True)\n"
        "    time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(previous)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == b"half way\n"
        child.kill()
        assert child.wait(timeout=30) == -signal.SIGKILL
    assert previous.read_text(encoding="utf-8") == "before"
    (left,) = set(previous.parent.iterdir()) - {previous}
    assert left.read_text(encoding="utf-8") == "aft"  # it really was in the middle
    assert remove_unfinished(previous.parent.resolve()) == [left.resolve()]
    assert_untouched(previous)


@pytest.mark.parametrize("name", ["a", "a.tar.gz", ".hidden", "é" * 127, "a." + "s" * 250])
def test_what_killed_processes_left_is_removed_whatever_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)  # as if it were killed
    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way(tmp_path / name, RuntimeError("half way"))
    monkeypatch.undo()
    (left,) = tmp_path.iterdir()
    assert remove_unfinished(tmp_path) == [left]
    assert list(tmp_path.iterdir()) == []


def test_nothing_else_is_removed(tmp_path: Path) -> None:
    kept = [".a.tmp", ".a.12345678.temp", "a.12345678.tmp", ".a.1234567.tmp", ".a.12345678.tmpx"]
    for name in kept:
        (tmp_path / name).touch()
    (tmp_path / ".b.12345678.tmp").mkdir()  # whoever made that, it was not this module
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / ".d.12345678.tmp").touch()  # of a folder that another may hold
    before = sorted(tmp_path.rglob("*"))
    assert remove_unfinished(tmp_path) == []
    assert sorted(tmp_path.rglob("*")) == before
    assert remove_unfinished(tmp_path / "missing") == []


def test_block_that_writes_nothing_is_refused(previous: Path) -> None:
    message = r"nothing was written for .*scores\.json: the block has to write the path"
    with pytest.raises(FileNotFoundError, match=message), atomic_path(previous):
        pass
    assert_untouched(previous)


def test_folder_as_target_is_refused_before_the_work(tmp_path: Path) -> None:
    message = "cannot write .*: it is a folder; give the name of a file"
    with pytest.raises(IsADirectoryError, match=message), atomic_path(tmp_path):
        pytest.fail("the block ran")
    assert list(tmp_path.iterdir()) == []


def test_file_as_parent_is_explained(previous: Path) -> None:
    message = (
        r"cannot write a\.txt in .*scores\.json: .*; no partial file is left; .*another folder"
    )
    with pytest.raises((FileExistsError, NotADirectoryError), match=message):
        write_text(previous / "a.txt", "text")


def test_bytes_are_written_as_they_are(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", b"\x00\r\n\xff")
    assert (tmp_path / "a").read_bytes() == b"\x00\r\n\xff"


def test_text_is_utf8_with_its_own_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "é\n")
    assert (tmp_path / "a").read_bytes() == b"\xc3\xa9\n"


def test_json_round_trip(tmp_path: Path) -> None:
    obj = {"name": "Zürich", "ap": 0.25, "list": [1, None, True]}
    write_json(tmp_path / "a.json", obj)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == obj
    assert "Zürich" in text
    assert text.endswith("}\n")


def test_json_of_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"ab\xff")
    write_json(tmp_path / "a.json", {"name": name})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"name": name}


@pytest.mark.parametrize(
    ("obj", "error", "message"),
    [
        ({"a": {1}}, TypeError, r"scores\.json: .*set is not JSON .*; convert it to dict, list"),
        ({"a": float("nan")}, ValueError, r"scores\.json: .*nan.*; put None \(null\) in its place"),
    ],
)
def test_what_json_cannot_hold(
    previous: Path, obj: object, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        write_json(previous, obj)
    assert_untouched(previous)
