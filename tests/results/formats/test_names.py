"""Is every image's name its own, and the way to it that from one folder?"""

from __future__ import annotations

import pytest

from diffinst.results.formats.names import Names


def taken(paths: list[str]) -> list[tuple[str, str]]:
    names = Names(iter(paths))
    return [names.take(path) for path in paths]


def test_stems_that_several_share_get_numbers_that_no_stem_has() -> None:
    paths = ["/in/a.png", "/in/A.tif", "/in/a-2.png", "/in/b.png", "/in/a.jpg", "/in/a-2.bmp"]
    names = [name for name, _ in taken(paths)]
    assert names == ["a", "A-3", "a-2", "b", "a-4", "a-2-2"]  # A-2 would be a-2 for some disks


@pytest.mark.parametrize(
    ("paths", "seen"),
    [
        (["/in/a.png"], ["a.png"]),
        (["/in/x/a.png", "/in/y/z/b.png", "/in/c.png"], ["x/a.png", "y/z/b.png", "c.png"]),
        (["/a.png", "/in/b.png"], ["a.png", "in/b.png"]),
        (["s3://bucket/x/a.png", "s3://bucket/b.png"], ["x/a.png", "b.png"]),
        (["s3://one/a.png", "s3://two/b.png"], ["one/a.png", "two/b.png"]),
        (["s3://one/a.png", "/in/b.png"], ["s3://one/a.png", "/in/b.png"]),
        (["s3://one/a.png", "gs://two/b.png"], ["s3://one/a.png", "gs://two/b.png"]),
        (
            ["s3://one/a.png", "/in/b.png", "/in/c.png"],
            ["s3://one/a.png", "/in/b.png", "/in/c.png"],
        ),
        ([], []),
    ],
)
def test_paths_are_seen_from_the_innermost_folder(paths: list[str], seen: list[str]) -> None:
    assert [file_name for _, file_name in taken(paths)] == seen
