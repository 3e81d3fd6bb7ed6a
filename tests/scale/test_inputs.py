"""Does everything that may be given as images come out as the same list of paths?"""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diffinst.io.image_error import ImageReadError
from diffinst.scale.inputs import Entry, Inputs, _address
from diffinst.scale.remote import local_copy


def paths(*given: str | Path) -> list[str]:
    return [entry.path for entry in Inputs.of(list(given))]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b.png", "a/c.JPG", "a/d.txt", ".hidden/e.png", "a/.f.png", "x/b.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"12345")
    return tmp_path / "in"


def test_a_folder_is_listed_in_order(tree: Path) -> None:
    assert paths(tree) == ["b.png", "a/c.JPG", "x/b.png"]
    os.utime(tree / "b.png", ns=(7, 7))
    assert next(iter(Inputs.of(tree))) == Entry("b.png", 5, 7)


def test_several_folders_start_from_what_they_share(tree: Path) -> None:
    inputs = Inputs.of([tree / "x", tree / "a"])
    assert inputs.root == str(tree)
    assert [entry.path for entry in inputs] == ["x/b.png", "a/c.JPG"]


def test_files_patterns_and_lists(tree: Path) -> None:
    assert paths(tree / "b.png") == ["b.png"]
    assert paths(f"{tree}/**/*.png") == ["b.png", "x/b.png"]
    listed = tree / "list.txt"
    elsewhere = "/nowhere/a b.png"
    listed.write_text(f"x/b.png\n\nb.png\ngone.png\ns3://bucket/a.png\n{elsewhere}\n./b.png\n")
    found = list(Inputs.of(listed))
    names = ["x/b.png", "b.png", "gone.png", "s3://bucket/a.png", elsewhere, "b.png"]
    assert [entry.path for entry in found] == names
    assert found[1] == found[5]  # the plan will drop one
    assert found[2] == Entry("gone.png", None, None)


def test_a_column_of_parquet(tree: Path) -> None:
    table = pa.table({"number": [1, 2, 3], "path": ["b.png", None, "x/b.png"], "also": list("xyz")})
    pq.write_table(table, tree / "list.parquet")
    assert paths(tree / "list.parquet") == ["b.png", "x/b.png"]
    assert paths(f"{tree / 'list.parquet'}:also") == ["x", "y", "z"]
    with pytest.raises(ImageReadError, match=r"no column 'nix'; there are number, path, also"):
        paths(f"{tree / 'list.parquet'}:nix")
    with pytest.raises(ImageReadError, match="column number holds no text"):
        paths(f"{tree / 'list.parquet'}:number")
    pq.write_table(pa.table({"n": [1]}), tree / "n.parquet")
    with pytest.raises(ImageReadError, match=r"none of the columns path, uri, .* name one"):
        paths(tree / "n.parquet")


def test_a_column_without_a_path_is_named(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"path": pa.array([None, ""], pa.string())})
    pytest.importorskip("pyarrow.parquet").write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ImageReadError, match=r"a\.parquet: column path holds no path"):
        list(Inputs.of(tmp_path / "a.parquet"))


def test_a_list_may_begin_with_a_mark_of_its_encoding(tree: Path) -> None:
    (tree / "list.txt").write_bytes(b"\xef\xbb\xbfb.png\r\nx/b.png\r\n")
    assert paths(tree / "list.txt") == ["b.png", "x/b.png"]


@pytest.mark.parametrize(
    ("name", "asked", "path", "address"),
    [
        ("/data/in/a.png", "file:///data/in", "/data/in", "file:///data/in/a.png"),
        ("/a.png", "file:///", "/", "file:///a.png"),
        ("/dir/x/a.png", "sftp://host/dir/", "/dir", "sftp://host/dir/x/a.png"),
        ("/a.png", "sftp://me@host:22/", "/", "sftp://me@host:22/a.png"),
        ("/d/1/a.png", "sftp://host/d/*/a.png", "/d/*/a.png", "sftp://host/d/1/a.png"),
        ("b/in/a.png", "s3://b/in", "b/in", "s3://b/in/a.png"),
        ("b/a.png", "s3://b/", "b", "s3://b/a.png"),
        ("b/a.png", "s3://*/a.png", "*/a.png", "s3://b/a.png"),
        ("c/d/a.png", "abfs://c@me.host/d", "c/d", "abfs://c@me.host/d/a.png"),
    ],
)
def test_addresses_keep_host_and_root(name: str, asked: str, path: str, address: str) -> None:
    assert _address(name, asked, path) == address


def test_a_folder_by_its_address_is_listed_and_read(tree: Path) -> None:
    pytest.importorskip("fsspec")
    wanted = [f"file://{tree}/{name}" for name in ("a/c.JPG", "b.png", "x/b.png")]
    found = paths(f"file://{tree}")
    assert [one for one in found if "/." not in one] == wanted
    assert paths(f"file://{tree}/x/*.png") == wanted[2:]
    with local_copy(wanted[1]) as copy:
        assert copy.read_bytes() == b"12345"


def test_times_may_be_any(tree: Path) -> None:
    """Clocks jump: before 1970, and far ahead."""
    os.utime(tree / "b.png", ns=(-(10**18), -(10**18)))
    os.utime(tree / "x" / "b.png", ns=(8 * 10**18, 8 * 10**18))
    assert [entry.time for entry in Inputs.of([tree / "b.png", tree / "x"])] == [
        -(10**18),
        8 * 10**18,
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"a.png\n\xff\xfe", "is no UTF-8 text"), (b"a\0.png\n", "is no text file")],
)
def test_a_list_that_is_none(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(ImageReadError, match=rf"list\.txt: {said}"):
        paths(tmp_path / "list.txt")


def test_what_cannot_be_listed_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageReadError, match=r"nix: there is no such file"):
        Inputs.of(tmp_path / "nix")
    with pytest.raises(ImageReadError, match="the name is empty"):
        Inputs.of("")
    with pytest.raises(ImageReadError, match="no images are given"):
        Inputs.of([])
    with pytest.raises(ValueError, match=r"warp://a/b\.png: "):
        Inputs.of("warp://a/b.png")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1....")
    with pytest.raises(ImageReadError, match=r"torn.parquet: cannot be read as Parquet"):
        paths(tmp_path / "torn.parquet")


def test_where_nothing_is_found_is_said_for_each(tree: Path) -> None:
    with pytest.raises(ImageReadError, match=r"\*\.xyz: no file matches"):
        list(Inputs.of([tree, tree / "*.xyz"]))
    with pytest.raises(ImageReadError, match=r"file://.*/none: nothing is there; check the addr"):
        list(Inputs.of([tree, f"file://{tree}/none"]))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_a_list_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.png")
    (tmp_path / "list.txt").chmod(0)
    with pytest.raises(ImageReadError, match="the list cannot be read"):
        paths(tmp_path / "list.txt")
