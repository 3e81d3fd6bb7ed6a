"""The published images and masks of nuclei become the COCO-format folder they mean."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from diffinst.datasets.load import load_split
from diffinst.datasets.segmentation import DatasetError, rasterize
from diffinst.download.archive import ArchiveError
from diffinst.download.nuclei import convert, split_of

VAL = "04acab7636c4cf61" + "0" * 48  # a real id begins so, and its image is one to validate on
TRAIN = ("00071198d059ba7f" + "0" * 48, "003cee89357d9fe1" + "0" * 48)


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def image(shade: int, alpha: int = 255) -> bytes:
    """4 x 6, red, with alpha, as most of the published ones."""
    return png(np.full((4, 6, 4), (shade, 0, 0, alpha), np.uint8))


def mask(rows: slice, columns: slice, shape: tuple[int, int] = (4, 6)) -> bytes:
    pixels = np.zeros(shape, np.uint8)
    pixels[rows, columns] = 255
    return png(pixels)


def sample(name: str, shade: int) -> dict[str, bytes]:
    """Two nuclei of 2 x 3 and 1 x 1 pixels, and a mask without any."""
    return {
        f"{name}/images/{name}.png": image(shade),
        f"{name}/masks/b.png": mask(slice(3, 4), slice(5, 6)),
        f"{name}/masks/a.png": mask(slice(0, 2), slice(1, 4)),
        f"{name}/masks/c.png": mask(slice(0, 0), slice(0, 0)),
    }


def packed(path: Path, content: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, value in content.items():
            file.writestr(name, value)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    content = sample(TRAIN[1], 20) | sample(VAL, 30) | sample(TRAIN[0], 10)
    content[f"__MACOSX/{VAL}/masks/._a.png"] = b"no image"
    return packed(tmp_path / "a.zip", content)


def test_images_and_masks_by_hand(file: Path, tmp_path: Path) -> None:
    root = tmp_path / "nuclei"
    seen: list[tuple[int, int]] = []
    assert convert(file, root, progress=lambda *at: seen.append(at)) == root
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert sorted(path.name for path in root.iterdir()) == ["annotations", "train", "val"]
    train, val = load_split(root, "train"), load_split(root, "val")
    assert [record.path.name for record in train.records] == [f"{name}.png" for name in TRAIN]
    assert [record.path.name for record in val.records] == [f"{VAL}.png"]
    assert train.classes == ("nucleus",)
    for record, shade in zip((*train.records, *val.records), (10, 20, 30), strict=True):
        assert (record.height, record.width) == (4, 6)
        with Image.open(record.path) as opened:
            assert opened.mode == "RGB"
            assert (np.asarray(opened) == (shade, 0, 0)).all()
        first, second = record.annotations
        assert first.box == (1, 0, 4, 2) and first.area == 6
        assert second.box == (5, 3, 6, 4) and second.area == 1
        expected = np.zeros((4, 6), bool)
        expected[0:2, 1:4] = True
        assert (rasterize(first.segmentation, 4, 6) == expected).all()
        assert isinstance(first.segmentation, dict)
        assert isinstance(first.segmentation["counts"], str)  # compressed
    assert [a.id for record in train.records for a in record.annotations] == [1, 2, 3, 4]


def test_the_same_archive_gives_the_same_files(file: Path, tmp_path: Path) -> None:
    roots = [convert(file, tmp_path / name) for name in "ab"]
    one, other = (
        {str(p.relative_to(r)): p.read_bytes() for p in r.rglob("*") if p.is_file()} for r in roots
    )
    assert len(one) == 5 and one == other


def test_one_split_and_then_the_other(file: Path, tmp_path: Path) -> None:
    root = convert(file, tmp_path / "nuclei", splits=["val"])
    assert sorted(path.name for path in root.iterdir()) == ["annotations", "val"]
    with pytest.raises(FileExistsError, match="val exists; move it away first"):
        convert(file, root)
    convert(file, root, splits=["train"])
    assert len(load_split(root, "train").records) == 2


def test_a_folder_around_it_and_an_image_without_nuclei(tmp_path: Path) -> None:
    name = TRAIN[0]
    shaded = {f"stage1_train/{name}/images/{name}.png": png(np.full((3, 5), 7, np.uint8))}
    root = convert(packed(tmp_path / "a.zip", shaded), tmp_path / "nuclei", splits=["train"])
    (record,) = load_split(root, "train").records
    assert record.annotations == () and (record.height, record.width) == (3, 5)
    with Image.open(record.path) as opened:
        assert np.asarray(opened).shape == (3, 5, 3)  # grey becomes RGB


def test_alpha_changes_no_colour(tmp_path: Path) -> None:
    name = TRAIN[0]
    content = {f"{name}/images/{name}.png": image(200, alpha=0)}
    root = convert(packed(tmp_path / "a.zip", content), tmp_path / "nuclei", splits=["train"])
    with Image.open(root / "train" / f"{name}.png") as opened:
        assert (np.asarray(opened) == (200, 0, 0)).all()


def test_the_split_is_that_of_the_shipped_weights(shared_dir: Path) -> None:
    folder = shared_dir / "datasets" / "nuclei" / "annotations"
    if not folder.is_dir():
        pytest.skip(f"no nuclei in {shared_dir}")
    for split, count in (("train", 532), ("val", 66)):
        images = json.loads((folder / f"instances_{split}.json").read_text())["images"]
        assert len(images) == count
        assert {split_of(image["source_id"]) for image in images} == {split}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            {f"{TRAIN[0]}/masks/d.png": mask(slice(0, 1), slice(0, 1), (4, 5))},
            r"masks/d\.png is of size \(4, 5\) \(height, width\), its image of \(4, 6\)",
            id="a mask of another size",
        ),
        pytest.param(
            {f"{TRAIN[0]}/masks/d.png": b"no image"},
            r"masks/d\.png cannot be read \(cannot identify image",
            id="a broken mask",
        ),
        pytest.param(
            {f"{TRAIN[0]}/images/{TRAIN[0]}.png": image(9)[:45]},
            r"images/\w+\.png cannot be read",
            id="a broken image",
        ),
        pytest.param(
            {f"{TRAIN[0]}/images/again.png": image(9)},
            rf"{TRAIN[0]} has 2 images in its images/, expected is one",
            id="two images",
        ),
        pytest.param(
            {f"{'f' * 64}/masks/a.png": mask(slice(1), slice(1))},
            rf"{'f' * 64} has 0 images in its images/, expected is one",
            id="masks alone",
        ),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_left(
    tmp_path: Path, change: dict[str, bytes], message: str
) -> None:
    file = packed(tmp_path / "a.zip", sample(TRAIN[0], 10) | change)
    with pytest.raises(DatasetError, match=rf"a\.zip: .*{message}"):
        convert(file, tmp_path / "nuclei", splits=["train"])
    assert not list((tmp_path / "nuclei").glob("*"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, r"no ID/images/ID\.png in it; give stage1_train\.zip"),
        ({"readme.txt": b"hello"}, r"no ID/images/ID\.png in it; give stage1_train\.zip"),
        (sample(TRAIN[0], 1), r"holds no image of the split 'val'; is it stage1_train\.zip\?"),
    ],
)
def test_another_archive(tmp_path: Path, content: dict[str, bytes], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        convert(packed(tmp_path / "a.zip", content), tmp_path / "nuclei", splits=["val"])


def test_no_archive_and_no_such_split(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no split 'test' of nuclei; there are train, val"):
        convert(file, tmp_path, splits=["train", "test"])
    file.write_bytes(b"<html>")
    with pytest.raises(ArchiveError, match="no zip archive"):
        convert(file, tmp_path)


def test_a_killed_run_is_begun_anew(file: Path, tmp_path: Path) -> None:
    root = tmp_path / "nuclei"
    left = root / ".train.unpacking" / "old.png"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(file, root, progress=stop)
    assert not (root / "train").exists()
    convert(file, root)
    assert len(list((root / "train").iterdir())) == 2
    assert sorted(path.name for path in root.iterdir()) == ["annotations", "train", "val"]
