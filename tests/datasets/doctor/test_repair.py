"""A repair keeps what is sound, puts the rest right, and is complete or absent."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffinst.datasets.doctor import repair
from diffinst.datasets.doctor.examine import examine
from diffinst.io import disk

HEIGHT, WIDTH = 96, 128
Data = Any  # of conftest.py
Trains = Callable[[Path], bool]


def repaired(data: Data, split: str = "train") -> dict[str, Any]:
    """The json of the split after a repair of the whole."""
    data.save()
    repair.write(examine(data.root), data.root.parent / "fixed")
    file = data.root.parent / "fixed" / "annotations" / f"instances_{split}.json"
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def test_repair_keeps_what_is_sound(data: Data, tmp_path: Path) -> None:
    """Every field, also those nobody reads, and every byte of the images."""
    data.train["licenses"] = [{"id": 1}]
    data.train["images"][0]["camera"] = {"gain": 2.0}
    data.train["annotations"][0]["score"] = 0.5
    for content in (data.train, data.val):
        content["categories"][0]["supercategory"] = "shape"
    data.save()
    done = repair.write(examine(data.root), tmp_path / "fixed")
    assert (done.images, done.objects) == ((8, 8), (42, 42))
    for split, content in (("train", data.train), ("val", data.val)):
        written = tmp_path / "fixed" / "annotations" / f"instances_{split}.json"
        assert json.loads(written.read_text(encoding="utf-8")) == content
        for path in (data.root / split).iterdir():
            copy = tmp_path / "fixed" / split / path.name
            assert copy.read_bytes() == path.read_bytes()
            assert copy.stat().st_ino != path.stat().st_ino  # no link


def test_how_frequent_a_class_is_is_kept_where_it_says_so(data: Data) -> None:
    for content in (data.train, data.val):
        content["categories"][0].update(frequency="c", supercategory="shape")
        content["categories"][1].update(frequency="r")
        for image in content["images"]:  # as LVIS has them
            image["neg_category_ids"] = []
    assert repaired(data)["categories"] == data.train["categories"]


@pytest.mark.parametrize("wrong", ["", 0, False, [], "often"])
def test_what_tells_nothing_of_a_class_is_dropped(data: Data, wrong: object) -> None:
    data.train["categories"][0].update(frequency=wrong, supercategory=[])
    assert repaired(data)["categories"] == [{"id": 1, "name": "disc"}, {"id": 2, "name": "box"}]


def test_what_json_does_not_know_becomes_null(data: Data) -> None:
    data.train["annotations"][0]["score"] = float("nan")
    assert repaired(data)["annotations"][0]["score"] is None


def test_turned_image_is_written_as_it_was_annotated(data: Data, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.open(data.image(0)).save(data.root / "train" / "turned.jpg", exif=exif)
    data.train["images"][0]["file_name"] = "turned.jpg"
    image = repaired(data)["images"][0]
    assert (image["file_name"], image["height"], image["width"]) == ("turned.png", HEIGHT, WIDTH)
    fixed = tmp_path / "fixed" / "train" / "turned.png"
    with Image.open(data.root / "train" / "turned.jpg") as stored, Image.open(fixed) as written:
        assert dict(written.getexif()) == {}
        np.testing.assert_array_equal(np.asarray(written), np.asarray(stored))


def test_copy_of_an_image_with_more_objects_is_kept(data: Data) -> None:
    Image.open(data.image(0)).save(data.root / "train" / "again.bmp")
    image = {**data.train["images"][0], "id": 9, "file_name": "again.bmp"}
    data.train["images"].insert(0, image)
    data.train["annotations"].append({**data.train["annotations"][0], "id": 99, "image_id": 9})
    assert [image["id"] for image in repaired(data)["images"]] == [1, 2, 3, 4, 5, 6]


def test_leaked_image_is_left_out_of_train_alone(data: Data, tmp_path: Path) -> None:
    shutil.copy(data.image(0, "val"), data.root / "train" / "leaked.png")
    data.train["images"].append({**data.val["images"][0], "id": 9, "file_name": "leaked.png"})
    assert [image["id"] for image in repaired(data)["images"]] == [1, 2, 3, 4, 5, 6]
    assert len(list((tmp_path / "fixed" / "val").iterdir())) == 2


def test_leak_of_most_of_train_is_left_to_the_user(data: Data) -> None:
    shutil.rmtree(data.root / "val")
    shutil.copytree(data.root / "train", data.root / "val")
    data.val = data.train
    data.save()
    (finding,) = examine(data.root).findings
    assert (finding.code, finding.count, finding.left, finding.repair) == ("leak", 6, 6, "")
    assert len(repaired(data)["images"]) == 6


def test_merged_entries_share_their_objects(data: Data) -> None:
    data.train["images"].append({**data.train["images"][0], "id": 9})
    data.train["annotations"][0]["image_id"] = 9
    content = repaired(data)
    assert [image["id"] for image in content["images"]] == [1, 2, 3, 4, 5, 6]
    assert [a["image_id"] for a in content["annotations"] if a["id"] == 1] == [1]


def test_second_of_two_equal_ids_is_renumbered(data: Data) -> None:
    data.train["annotations"][1]["id"] = 1
    ids = [entry["id"] for entry in repaired(data)["annotations"]]
    assert ids == [1, 33, *range(3, 33)]


def test_class_numbers_of_train_hold_everywhere(data: Data) -> None:
    """LVIS's lists of absent classes follow when classes are renumbered."""
    for image in data.val["images"]:
        image.update(neg_category_ids=[10], not_exhaustive_category_ids=[20, 10])
    for category in data.val["categories"]:
        category["id"] *= 10
    for entry in data.val["annotations"]:
        entry["category_id"] *= 10
    content = repaired(data, "val")
    assert content["categories"] == data.train["categories"]
    assert content["images"][0]["neg_category_ids"] == [1]
    assert content["images"][0]["not_exhaustive_category_ids"] == [2, 1]
    assert {entry["category_id"] for entry in content["annotations"]} == {1, 2}


def test_images_behind_links_are_copied(data: Data, tmp_path: Path, trains: Trains) -> None:
    """Two folders elsewhere, with files of one name."""
    for index, folder in enumerate(("a", "b")):
        (tmp_path / folder).mkdir()
        (data.root / "train" / folder).symlink_to(tmp_path / folder)
        shutil.move(data.image(index), tmp_path / folder / "same.png")
        data.train["images"][index]["file_name"] = f"{folder}/same.png"
    names = [image["file_name"] for image in repaired(data)["images"]]
    assert names[:2] == ["a/same.png", "b/same.png"]
    assert not (tmp_path / "fixed" / "train" / "a").is_symlink()
    assert trains(tmp_path / "fixed")


def test_no_image_elsewhere_is_copied(data: Data, tmp_path: Path) -> None:
    secret = shutil.move(data.image(0), tmp_path / "secret.png")
    data.train["images"][0]["file_name"] = str(secret)
    assert len(repaired(data)["images"]) == 5
    assert not list((tmp_path / "fixed").rglob("secret*"))


# --- a repair is complete or absent


def test_interrupted_repair_leaves_nothing(clean: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repair.write(examine(clean), tmp_path / "deep" / "fixed", stop)
    assert list((tmp_path / "deep").iterdir()) == []


def test_repair_does_not_touch_what_is_there(clean: Path, tmp_path: Path) -> None:
    report = examine(clean)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is there already; name a folder that does not"):
        repair.write(report, tmp_path / "full")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="is there already; name a folder that does not"):
        repair.write(report, tmp_path / "file")
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["file", "full"]
    with pytest.raises(ValueError, match="stays as it is; name a folder outside"):
        repair.write(report, clean / "train" / "fixed")
    assert not (clean / "train" / "fixed").exists()


def test_repair_goes_into_an_empty_folder(clean: Path, tmp_path: Path, trains: Trains) -> None:
    (tmp_path / "empty").mkdir()
    repair.write(examine(clean), tmp_path / "empty")
    assert trains(tmp_path / "empty")


def test_copy_below_a_file_is_refused(clean: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(PermissionError, match=r"cannot be made: .*file may not be written; name"):
        repair.write(examine(clean), tmp_path / "file" / "fixed")


def test_too_little_room_is_told_before_anything_is_written(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "free_space", lambda folder: 1000)
    with pytest.raises(OSError, match=r"the repaired copy needs \S+ kB in \S+fixed, where 1.0 kB"):
        repair.write(examine(data.root), tmp_path / "fixed")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


@pytest.mark.parametrize("writer", ["shutil.copyfile", "pathlib.Path.write_text"])
def test_a_disk_that_fills_up_leaves_nothing(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    def fill(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    report = examine(data.root)
    monkeypatch.setattr(writer, fill)
    full = r"cannot write \S+fixed: the disk .* is full; nothing of the copy is left; free some"
    with pytest.raises(OSError, match=full):
        repair.write(report, tmp_path / "fixed")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]
