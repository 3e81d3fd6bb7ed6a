"""Are label images on disk those that `to_label_map` gives, part by part?"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from diffinst.results.crops import CroppedMasks
from diffinst.results.instances import Instances
from diffinst.results.labels import write_labels

tifffile = pytest.importorskip("tifffile")
zarr = pytest.importorskip("zarr")
SIZE = (70, 1100)


def squares(*places: tuple[int, int, float]) -> Instances:
    """6 x 6 pixels at (y, x), with a score."""
    masks = CroppedMasks(
        torch.tensor([[y, x, 6, 6] for y, x, _ in places]),
        tuple(torch.ones(6, 6, dtype=torch.bool) for _ in places),
        SIZE,
    )
    boxes = torch.tensor([[x, y, x + 6, y + 6] for y, x, _ in places], dtype=torch.float32)
    scores = torch.tensor([score for _, _, score in places])
    labels = torch.zeros(len(places), dtype=torch.int64)
    return Instances(boxes, scores, labels, masks, SIZE, ("cell",))


def test_numbers_are_places_and_the_higher_score_wins(tmp_path: Path) -> None:
    first, second = squares((2, 3, 0.5), (4, 5, 0.9)), squares((60, 1022, 0.7))
    assert write_labels(tmp_path / "labels.zarr", [first, second], SIZE, mpp=0.5) == 3
    group = zarr.open_group(tmp_path / "labels.zarr", mode="r")
    image = np.asarray(group["0"][:])
    assert image.dtype == np.uint32
    assert np.bincount(image.ravel()).tolist()[1:] == [36 - 16, 36, 36]
    assert image[60:66, 1022:1028].min() == 3  # over the border of two chunks
    multiscale = group.attrs["multiscales"][0]
    assert [axis["unit"] for axis in multiscale["axes"]] == ["micrometer"] * 2
    assert multiscale["datasets"][0]["coordinateTransformations"][0]["scale"] == [0.5, 0.5]


def test_a_tiled_tiff_holds_the_same(tmp_path: Path) -> None:
    found = squares((2, 3, 0.9), (60, 1000, 0.8))
    found.write_labels(tmp_path / "labels.tif")
    with tifffile.TiffFile(tmp_path / "labels.tif") as file:
        assert file.pages[0].is_tiled and file.pages[0].dtype == np.uint32
        assert np.array_equal(file.asarray(), found.to_label_map())


def test_an_earlier_image_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    for found in (squares((2, 3, 0.9), (20, 3, 0.9)), squares((2, 3, 0.9))):
        found.write_labels(tmp_path / "labels.zarr")
    assert zarr.open_group(tmp_path / "labels.zarr", mode="r")["0"][:].max() == 1
    assert [path.name for path in tmp_path.iterdir()] == ["labels.zarr"]


def test_a_folder_that_is_no_label_image_of_ours_is_refused_before_any_work(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.zarr"
    array = zarr.open_array(path, mode="w", shape=(30, 40), chunks=(30, 40), dtype="u1")
    array[:] = 7
    parts = iter([squares((2, 3, 0.9))])
    with pytest.raises(ValueError, match=r"a\.zarr: exists and is no label image that diffinst"):
        write_labels(path, parts, SIZE)
    assert len(list(parts)) == 1
    assert zarr.open_array(path, mode="r")[:].min() == 7
    (tmp_path / "empty.zarr").mkdir()
    assert write_labels(tmp_path / "empty.zarr", [], SIZE) == 0


@pytest.mark.parametrize("step", ["rename", "remove"])
def test_a_stop_while_an_earlier_image_is_replaced_leaves_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "labels.zarr"
    squares((2, 3, 0.9)).write_labels(path)
    rename, remove = Path.rename, shutil.rmtree

    def stopped_rename(source: Path, target: Path) -> Path:
        if source.name.endswith(".unfinished"):
            raise KeyboardInterrupt
        return rename(source, target)

    def stopped_remove(folder: Path, ignore_errors: bool = False) -> None:
        there = folder.exists()
        remove(folder, ignore_errors=ignore_errors)
        if there and not folder.name.endswith(".unfinished"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if step == "rename":
            patched.setattr(Path, "rename", stopped_rename)
        else:
            patched.setattr(shutil, "rmtree", stopped_remove)
        with pytest.raises(KeyboardInterrupt):
            squares((2, 3, 0.9), (20, 3, 0.9)).write_labels(path)
    assert zarr.open_group(path, mode="r")["0"][:].max() == (1 if step == "rename" else 2)


def test_an_image_that_a_kill_left_aside_comes_back(tmp_path: Path) -> None:
    def stopped() -> Iterator[Instances]:
        yield squares((2, 3, 0.9))
        raise KeyboardInterrupt

    path = tmp_path / "labels.zarr"
    squares((2, 3, 0.9), (20, 3, 0.9)).write_labels(path)
    path.rename(tmp_path / ".labels.zarr.replaced")  # killed between two renames
    with pytest.raises(KeyboardInterrupt):
        write_labels(path, stopped(), SIZE)
    assert zarr.open_group(path, mode="r")["0"][:].max() == 2
    assert [file.name for file in tmp_path.iterdir()] == ["labels.zarr"]


def test_nothing_found_is_all_background(tmp_path: Path) -> None:
    write_labels(tmp_path / "labels.tif", [], (30, 40))
    assert tifffile.imread(tmp_path / "labels.tif").tolist() == np.zeros((30, 40)).tolist()


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"labels\.png: label images are \.zarr, \.tif"):
        write_labels(tmp_path / "labels.png", [], (30, 40))
