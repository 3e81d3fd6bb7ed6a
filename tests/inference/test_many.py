"""Do folders and generators give what each image gives alone, in bounded memory, in order?"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from diffinst.config import Reading
from diffinst.inference import many, runner
from diffinst.inference.predictor import DiffusionInst
from diffinst.io import images
from diffinst.io.images import ImageReadError, ImageSource, Pixels
from diffinst.results.instances import Instances

SIZES = [(24, 32), (40, 20), (24, 32), (30, 30), (33, 20), (40, 20), (24, 31)]


@pytest.fixture(scope="module")
def model() -> DiffusionInst:
    return DiffusionInst.from_preset("tiny")


@pytest.fixture(autouse=True)
def pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images at once, so that a few already make several batches."""
    monkeypatch.setattr(runner, "FEW_AT_ONCE", 2)


def pixels(i: int) -> NDArray[np.uint8]:
    return np.random.default_rng(i).integers(0, 256, (*SIZES[i % len(SIZES)], 3), np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(len(SIZES)):
        Image.fromarray(pixels(i)).save(tmp_path / f"{i}.png")
    return tmp_path


def assert_alike(found: Instances, wanted: Instances) -> None:
    assert (len(found), found.image_size) == (len(wanted), wanted.image_size)
    torch.testing.assert_close(found.boxes, wanted.boxes, rtol=0, atol=1e-2)
    torch.testing.assert_close(found.scores, wanted.scores, rtol=0, atol=1e-4)


def test_a_folder_gives_an_iterator_in_order(model: DiffusionInst, folder: Path) -> None:
    found = model.predict(str(folder), proposals=5)
    assert iter(found) is found  # type: ignore[comparison-overlap]
    results = list(found)
    assert [r.path for r in results] == [folder / f"{i}.png" for i in range(len(SIZES))]
    for i, result in enumerate(results):
        assert result.image is None  # kept only when asked
        assert_alike(result, model.predict(pixels(i), proposals=5))
    kept = list(model.predict(folder, proposals=5, keep_images=True))  # type: ignore[call-overload]
    assert all(np.array_equal(r.image, pixels(i)) for i, r in enumerate(kept))


def test_a_pattern_is_a_folder(model: DiffusionInst, folder: Path) -> None:
    found = list(model.predict(str(folder / "[0-2].png"), proposals=5))
    assert [r.path for r in found] == [folder / f"{i}.png" for i in range(3)]
    with pytest.raises(ImageReadError, match=r"\*\.bmp: no file matches"):
        model.predict(str(folder / "*.bmp"))


@pytest.mark.parametrize("given", [b"\x89PNG", io.BytesIO(b"\x89PNG"), {"a.png": 1}])
def test_what_only_looks_like_many_images_is_refused_at_once(
    model: DiffusionInst, given: object
) -> None:
    with pytest.raises(ImageReadError, match=type(given).__name__):
        model.predict(given)  # type: ignore[call-overload]


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(
    model: DiffusionInst, tmp_path: Path
) -> None:
    Image.fromarray(pixels(0)).save(tmp_path / "a[1].png")
    assert model.predict(tmp_path / "a[1].png", proposals=5).image_size == SIZES[0]


def test_a_generator_is_asked_for_little_more_than_is_used(model: DiffusionInst) -> None:
    asked = 0

    def images() -> Iterator[NDArray[np.uint8]]:
        nonlocal asked
        for i in range(200):
            asked += 1
            yield pixels(i)

    found = model.predict(images(), proposals=5)
    assert asked == 0
    for i in range(10):
        assert next(found).image_size == SIZES[i % len(SIZES)]
        assert asked <= i + 1 + 3 * 2 + 2
    found.close()  # type: ignore[attr-defined]
    assert threading.active_count() < 20


def test_an_unreadable_file_of_a_folder_is_omitted_with_a_warning(
    model: DiffusionInst, folder: Path
) -> None:
    (folder / "3.png").write_bytes(b"no image")
    with pytest.warns(UserWarning, match=r"omitted: .*3\.png: is not an image") as caught:
        found = list(model.predict(folder, proposals=5))
    assert [r.path.stem for r in found if r.path] == ["0", "1", "2", "4", "5", "6"]
    assert len([w for w in caught if "omitted" in str(w.message)]) == 1


def test_a_file_that_vanishes_meanwhile_is_omitted(model: DiffusionInst, folder: Path) -> None:
    found = model.predict(folder, proposals=5)
    (folder / "6.png").unlink()
    with pytest.warns(UserWarning, match=r"omitted: .*6\.png: there is no such file"):
        assert len(list(found)) == 6


def test_an_unreadable_item_of_an_iterable_comes_in_its_turn(
    model: DiffusionInst, folder: Path
) -> None:
    sources = [folder / "0.png", folder / "gone.png", folder / "1.png"]
    found = model.predict(iter(sources), proposals=5)
    assert next(found).path == sources[0]
    with pytest.raises(ImageReadError, match=r"gone\.png"):
        next(found)
    each = dict(model.predict_each(sources, proposals=5))
    assert list(each) == sources
    assert isinstance(each[sources[1]], ImageReadError) and isinstance(each[sources[2]], Instances)
    with pytest.raises(ImageReadError, match=r"gone\.png"):
        model.predict(sources, proposals=5)


@pytest.mark.parametrize("fine", [0, 1, 5])
def test_a_generator_that_raises_gives_all_before_it(model: DiffusionInst, fine: int) -> None:
    def images() -> Iterator[NDArray[np.uint8]]:
        for i in range(fine):
            yield pixels(i)
        raise RuntimeError("the camera is gone")

    found = model.predict(images(), proposals=5)
    for i in range(fine):
        assert next(found).image_size == SIZES[i]
    with pytest.raises(RuntimeError, match="the camera is gone"):
        next(found)


def test_nothing_gives_nothing(model: DiffusionInst, tmp_path: Path) -> None:
    assert list(model.predict(iter([]))) == []
    assert list(model.predict_each([])) == []
    with pytest.raises(ImageReadError, match="no images in"):
        model.predict(tmp_path)


def test_images_are_read_while_the_network_works(
    model: DiffusionInst, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers = set()
    read = images.read

    def remembered(source: ImageSource, reading: Reading) -> tuple[Pixels, tuple[str, ...]]:
        readers.add(threading.current_thread().name.rpartition("_")[0])
        return read(source, reading)

    monkeypatch.setattr(many, "read", remembered)
    assert len(list(model.predict((pixels(i) for i in range(4)), proposals=5))) == 4
    assert readers == {"read"}


def test_what_does_not_fit_together_goes_in_halves(
    model: DiffusionInst, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    features = model.network.features

    def limited(given: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sizes.append(len(given))
        if len(given) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return features(given)

    monkeypatch.setattr(model.network, "features", limited)
    assert len(list(model.predict((pixels(0) for _ in range(4)), proposals=5))) == 4
    assert sizes == [2, 1, 1, 2, 1, 1]


def test_large_images_share_a_batch_with_fewer(
    model: DiffusionInst, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "FEW_AT_ONCE", 32)
    sides = (512, 1024, 8000)
    assert [model._runner().at_once_of((side, side)) for side in sides] == [32, 8, 1]
