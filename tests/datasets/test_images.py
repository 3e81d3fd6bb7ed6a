"""Images are found where file names say, or where they can only be; never two for one."""

import os
from pathlib import Path

import numpy as np
import pytest

from diffinst.datasets.images import locate
from diffinst.datasets.packed import Packed, unpack_texts
from diffinst.datasets.packer import Images, Objects, pack
from diffinst.datasets.segmentation import DatasetError


def packed(*names: str | tuple[str, str]) -> Packed:
    """Images 10, 11, ... of these file names, without objects."""
    images = Images()
    for i, name in enumerate(names):
        name, other = (name, "") if isinstance(name, str) else name
        images.add(10 + i, 4, 6, name, other)
    return pack(images, Objects(), np.zeros(0, np.int64), np.zeros(0, np.int64))[0]


def located(folder: Path, *names: str | tuple[str, str]) -> list[str]:
    found = locate(packed(*names), folder, Path("some.json"))
    return unpack_texts(found.names, found.names_starts)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """coco/train with a.jpg, sub/b.jpg, sub/deep/c.jpg, one/twice.jpg, two/twice.jpg."""
    root = tmp_path / "coco" / "train"
    for name in ("a.jpg", "sub/b.jpg", "sub/deep/c.jpg", "one/twice.jpg", "two/twice.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("a.jpg", "a.jpg"),
        ("sub/deep/c.jpg", "sub/deep/c.jpg"),
        ("train/a.jpg", "a.jpg"),
        ("coco/train/sub/b.jpg", "sub/b.jpg"),
        ("sub\\deep\\c.jpg", "sub/deep/c.jpg"),
        ("c.jpg", "sub/deep/c.jpg"),
        ("/elsewhere/images/b.jpg", "sub/b.jpg"),
        ("../uploads/b.jpg", "sub/b.jpg"),
        ("C:\\Users\\me\\b.jpg", "sub/b.jpg"),
        ("one/twice.jpg", "one/twice.jpg"),
        (("COCO_train_b.jpg", "sub/b.jpg"), "sub/b.jpg"),
        (("a.jpg", "sub/b.jpg"), "a.jpg"),
        (("none.jpg", "c.jpg"), "sub/deep/c.jpg"),
    ],
)
def test_one_image(folder: Path, name: str | tuple[str, str], place: str) -> None:
    assert located(folder, name) == [place]


def test_names_that_say_it_right_are_left_alone(folder: Path) -> None:
    given = packed("a.jpg", "sub/b.jpg")
    assert locate(given, folder, Path("some.json")) is given
    assert located(folder) == []


def test_absolute_names_and_linked_folders(folder: Path, tmp_path: Path) -> None:
    (folder / "ä b.jpg").touch()
    (folder / "link").symlink_to(tmp_path)
    names = [f"{folder}/ä b.jpg", "link/coco/train/a.jpg"]
    assert located(folder, *names) == names


@pytest.mark.parametrize(
    "name",
    [
        "../secret.jpg",
        "..\\secret.jpg",
        "sub/../../secret.jpg",
        "{outside}/secret.jpg",
        "{outside}/train/../secret.jpg",
        "link/../secret.jpg",  # the system would look beside what the link leads to
    ],
)
@pytest.mark.parametrize("other", [False, True])
def test_nothing_outside_the_folder_is_read(folder: Path, name: str, other: bool) -> None:
    name = name.format(outside=folder.parent)
    (folder.parent / "secret.jpg").touch()
    (folder.parent / "linked").mkdir()
    (folder / "link").symlink_to(folder.parent / "linked")
    given = ("none.jpg", name) if other else name
    with pytest.raises(DatasetError, match=r"some\.json: image 10 \(.*\) is missing on disk"):
        located(folder, given)
    (folder / "sub" / "secret.jpg").touch()
    assert located(folder, given) == ["sub/secret.jpg"]


def test_a_name_that_leads_out_is_told(folder: Path) -> None:
    with pytest.raises(DatasetError, match=r"\('file_name' leads out of \S+train\); put it into"):
        located(folder, "../x.jpg")


def test_a_detour_within_the_folder_is_no_way_out(folder: Path) -> None:
    assert located(folder, "one/../sub/b.jpg") == ["sub/b.jpg"]


def test_a_relative_path_the_folder_does_not_have_is_not_guessed(folder: Path) -> None:
    with pytest.raises(DatasetError, match=r"image 10 \(other/a\.jpg\) is missing on disk; put it"):
        located(folder, "other/a.jpg")


@pytest.mark.parametrize("name", ["", ".", "..", "sub", "sub/", "a.jpg/", "a.jpg/x", "no\0.jpg"])
def test_what_is_no_file_is_missing(folder: Path, name: str) -> None:
    with pytest.raises(DatasetError, match=r"some\.json: image 11 .* is missing on disk"):
        located(folder, "a.jpg", name)


def test_ambiguous_names_are_refused(folder: Path) -> None:
    message = r"some\.json: image 10 \(twice\.jpg\) may be one/twice\.jpg, two/twice\.jpg in \S+tra"
    with pytest.raises(DatasetError, match=message):
        located(folder, "twice.jpg")


def test_two_images_of_one_file_are_named(folder: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"images 10, 12 are the same file, a\.jpg; put their an"
    ):
        located(folder, "a.jpg", "c.jpg", "train/a.jpg")


def test_missing_ones_are_counted(folder: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"image 11 \(x\.jpg\) \(and 2 more\) is missing on disk"
    ):
        located(folder, "a.jpg", "x.jpg", "y.jpg", "z.jpg")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_unreadable_folder(folder: Path) -> None:
    (folder / "sub").chmod(0)
    try:
        with pytest.raises(DatasetError, match="sub: Permission denied; check its permissions"):
            located(folder, "sub/b.jpg")
    finally:
        (folder / "sub").chmod(0o700)
