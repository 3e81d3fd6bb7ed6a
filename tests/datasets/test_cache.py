"""What was read is read once; a changed file is read again, a broken cache harms nobody."""

import json
import logging
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from diffinst.datasets import cache, coco
from diffinst.datasets.load import load_split
from diffinst.datasets.packed import Contents, PackedRecords
from diffinst.datasets.split import Split
from diffinst.datasets.synthetic import make_shapes


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder; every annotation file counts as large."""
    monkeypatch.setenv("DIFFINST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "SMALL", 0)
    return tmp_path / "cache"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were really read."""
    read, done = coco.read, list[Path]()

    def noted(file: Path, *, federated: bool = False) -> Contents:
        done.append(file)
        return read(file, federated=federated)

    monkeypatch.setattr(coco, "read", noted)
    return done


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_shapes(tmp_path / "data", train=3, val=2, size=(40, 56), objects=(1, 3))


def kept(home: Path) -> list[Path]:
    return sorted(path for path in home.rglob("*") if path.is_file())


def packed(split: Split) -> PackedRecords:
    assert isinstance(split.records, PackedRecords)
    return split.records


def test_the_second_time_comes_from_the_cache(data: Path, home: Path, reads: list[Path]) -> None:
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
    direct = coco.read(data / "annotations" / "instances_train.json")
    reads.clear()
    first, second = load_split(data, "train"), load_split(data, "train")
    assert len(reads) == 1
    assert first == second
    assert len(kept(home)) == 1
    for split in (first, second):
        for name, array in direct.packed.arrays().items():
            found = packed(split).packed.arrays()[name]
            assert (found.dtype, found.shape) == (array.dtype, array.shape), name
            assert np.array_equal(found, array), name
            assert isinstance(found, np.memmap) or not found.size
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*")} == before


def test_splits_are_kept_apart(data: Path, home: Path) -> None:
    assert [len(load_split(data, name).records) for name in ("train", "val") * 2] == [3, 2, 3, 2]
    assert len(kept(home)) == 2


def test_a_changed_file_is_read_again_and_the_old_state_forgotten(
    data: Path, home: Path, reads: list[Path]
) -> None:
    file = data / "annotations" / "instances_train.json"
    load_split(data, "train")
    (old,) = kept(home)
    os.utime(file, ns=(1, 1))
    load_split(data, "train")
    (new,) = kept(home)
    assert new != old
    assert len(reads) == 2
    content = json.loads(file.read_text())
    content["categories"][0]["name"] = "circle"
    file.write_text(json.dumps(content))
    assert load_split(data, "train").classes[0] == "circle"


def test_another_format_is_not_read(
    data: Path, home: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    load_split(data, "train")
    monkeypatch.setattr(cache, "FORMAT", cache.FORMAT + 1)
    load_split(data, "train")
    assert len(reads) == 2


def test_a_file_that_changes_while_it_is_read_is_not_kept(data: Path, home: Path) -> None:
    file = data / "annotations" / "instances_train.json"
    states = iter(["before", "after"])
    contents = cache.cached(file, "", lambda: next(states), lambda: coco.read(file))
    assert len(contents.packed.image_ids) == 3
    assert kept(home) == []


@pytest.mark.parametrize("damage", ["emptied", "cut", "grown", "one byte", "header", "no JSON"])
def test_a_damaged_cache_is_replaced(
    data: Path,
    home: Path,
    reads: list[Path],
    damage: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    expected = tuple(load_split(data, "train").records)
    (file,) = kept(home)
    content = file.read_bytes()
    changed = bytearray(content)
    changed[len(content) // 2] ^= 1
    file.unlink()  # the old one is still mapped
    file.write_bytes(
        {
            "emptied": b"",
            "cut": content[: len(content) // 2],
            "grown": content + bytes(64),
            "one byte": bytes(changed),
            "header": content.replace(b'"labels"', b'"lables"', 1),
            "no JSON": b"\xff" + content,
        }[damage]
    )
    with caplog.at_level(logging.WARNING):
        assert load_split(data, "train").records == expected
    assert "is damaged" in caplog.text
    assert len(reads) == 2
    caplog.clear()
    load_split(data, "train")
    assert len(reads) == 2
    assert caplog.text == ""
    assert kept(home)[0].read_bytes() == content


def test_a_cache_that_cannot_be_written_is_done_without(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DIFFINST_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(cache, "SMALL", 0)
    with caplog.at_level(logging.WARNING):
        assert len(load_split(data, "train").records) == 3
    assert "instances_train.json is not cached" in caplog.text


def test_warnings_come_again_from_the_cache(data: Path, home: Path, reads: list[Path]) -> None:
    file = data / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["segmentation"] = []
    file.write_text(json.dumps(content))
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"left out 1 annotations with an empty seg.*\(id 1\)"):
            load_split(data, "train")
    assert len(reads) == 1


def test_missing_images_are_noticed_whatever_the_cache_says(data: Path, home: Path) -> None:
    load_split(data, "train")
    (data / "train" / "000001.png").unlink()
    with pytest.raises(ValueError, match=r"image 2 \(000001\.png\) is missing on disk"):
        load_split(data, "train")


def test_small_files_are_not_kept(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFINST_CACHE", str(tmp_path / "cache"))
    load_split(data, "train")
    assert not (tmp_path / "cache").exists()


def _labels(records: PackedRecords) -> list[int]:
    return [a.label for record in records for a in record.annotations]


def test_another_process_maps_the_same_file(data: Path, home: Path) -> None:
    records = packed(load_split(data, "train"))
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(_labels, (records,)) == _labels(records)
