"""Do tiles give what the whole image gives, in any order, and flat in memory?"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from diffinst import DiffusionInst
from diffinst.config import ConfigError
from diffinst.io.images import ImageReadError
from diffinst.results.instances import Instances

Pixels = NDArray[np.uint8]


def nuclei(size: tuple[int, int], seed: int = 0) -> Pixels:
    """Bright discs of 12 to 22 pixels on a dark ground, apart from each other."""
    rng = np.random.default_rng(seed)
    image = np.full(size, 12.0)
    rows, columns = np.ogrid[: size[0], : size[1]]
    taken = np.zeros(size, bool)
    for _ in range(size[0] * size[1] // 500):
        y, x, radius = rng.uniform(0, size[0]), rng.uniform(0, size[1]), rng.uniform(6, 11)
        distance = np.hypot(rows - y, columns - x)
        if not taken[distance < radius + 3].any():
            taken |= distance < radius
            image += np.clip((radius - distance) / 2, 0, 1) * rng.uniform(70, 150)
    noise = rng.normal(0, 2, size)
    return np.repeat((image + noise).clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def overlaps(first: Instances, second: Instances) -> NDArray[np.float64]:
    """(n, m) mask IoU; images are small here."""
    a, b = (found.masks.flatten(1).double() for found in (first, second))
    both = a @ b.T
    return (both / (a.sum(1)[:, None] + b.sum(1)[None] - both).clamp(min=1)).numpy()


def joined(model: DiffusionInst, image: object, **options: object) -> Instances:
    parts = list(model.predict_tiles(image, **options))  # type: ignore[arg-type]
    size = image.shape[:2]  # type: ignore[attr-defined]
    return Instances.cat(parts or [Instances.empty(size, model.class_names)])


def test_an_image_that_fits_into_a_tile_gives_what_predict_gives(nano: DiffusionInst) -> None:
    image = nuclei((120, 150))
    assert joined(nano, image) == nano.predict(image)
    assert len(joined(nano, image)) > 5


def test_seams_leave_the_answer_of_the_whole_image(nano: DiffusionInst) -> None:
    image = nuclei((240, 330), seed=1)
    whole = nano.predict(image, steps=4)
    tiled = joined(nano, image, tile=160, overlap=64, steps=4)
    sure = whole.above(0.75)
    assert len(sure) > 30
    assert (overlaps(sure, tiled).max(1) >= 0.9).mean() >= 0.99
    twice = overlaps(tiled, tiled) > 0.5
    assert int(twice.sum()) == len(tiled)


def test_batches_do_not_change_what_is_found(nano: DiffusionInst) -> None:
    image = nuclei((100, 330), seed=2)
    one, two = (joined(nano, image, tile=128, overlap=32, batch=n) for n in (1, 2))
    assert len(one) == len(two)
    assert (overlaps(one, two).max(1) > 0.9).all()
    assert torch.allclose(one.scores, two.scores, atol=1e-3)


def test_masks_stay_as_small_as_their_objects(nano: DiffusionInst) -> None:
    image = nuclei((100, 330), seed=2)
    for part in nano.predict_tiles(image, tile=128, overlap=32):
        assert part.image_size == (100, 330)
        assert int(part.mask_crops.windows[:, 2:].max()) < 40


def test_flat_tiles_are_passed_over_and_counted(nano: DiffusionInst) -> None:
    image = np.full((100, 330, 3), 12, np.uint8)
    image[:, :100] = nuclei((100, 100))
    found = nano.predict_tiles(image, tile=128, overlap=32)
    assert len(Instances.cat(list(found))) > 0
    assert (found.counts.tiles, found.counts.skipped) == (
        2,
        2,
    )  # one nucleus reaches into the second
    everything = nano.predict_tiles(image, tile=128, overlap=32, skip="none")
    list(everything)
    assert (everything.counts.tiles, everything.counts.skipped) == (4, 0)


def test_all_that_comes_goes_into_one_file(nano: DiffusionInst, tmp_path: Path) -> None:
    image = nuclei((100, 200), seed=2)
    count = nano.predict_tiles(image, tile=128, overlap=32).to_geojson(tmp_path / "a.geojson")
    features = json.loads((tmp_path / "a.geojson").read_text())["features"]
    assert len(features) == count > 10
    tifffile, _ = pytest.importorskip("tifffile"), pytest.importorskip("zarr")
    nano.predict_tiles(image, tile=128, overlap=32).write_labels(tmp_path / "a.tif")
    assert len(np.unique(tifffile.imread(tmp_path / "a.tif"))) == count + 1


def test_an_error_while_reading_comes_through_and_the_image_is_closed(tiny: DiffusionInst) -> None:
    class Broken:
        name, closed = "broken.tif", False
        shape: tuple[int, int] = (64, 200)
        sizes: tuple[tuple[int, int], ...] = ((64, 200),)
        levels: tuple[float, ...] = (1.0,)
        mpp: float | None = None
        transform: tuple[float, float, float, float, float, float] | None = None
        crs: str | None = None
        notes: tuple[str, ...] = ()

        def read(self, y: int, x: int, height: int, width: int, level: int = 0) -> Pixels:
            if x:
                raise ImageReadError("broken.tif: window y 0, x 48 cannot be decoded")
            return np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)

        def close(self) -> None:
            self.closed = True

    image = Broken()
    with pytest.raises(ImageReadError, match=r"broken\.tif: window y 0, x 48"):
        list(tiny.predict_tiles(image, tile=64, overlap=16))
    assert image.closed


def test_wrong_values_are_refused_before_anything_is_read(tiny: DiffusionInst) -> None:
    missing = Path("nowhere.tif")
    with pytest.raises(ConfigError, match="overlap 128"):
        tiny.predict_tiles(missing, tile=100)
    with pytest.raises(ConfigError, match="steps"):
        tiny.predict_tiles(missing, steps=0)
    with pytest.raises(ImageReadError, match=r"nowhere\.tif"):
        tiny.predict_tiles(missing)


def test_a_time_limit_is_not_for_tiles(tmp_path: Path) -> None:
    model = DiffusionInst.from_preset("tiny")
    with pytest.raises(ConfigError, match=r"seconds is 0\.5, but a time limit is for one image"):
        model.predict_tiles(tmp_path / "missing.tif", seconds=0.5)


def test_the_image_that_is_read_is_never_written_over(tiny: DiffusionInst, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.new("RGB", (64, 64)).save(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"a\.tif: is the image that is read; name another"):
        tiny.predict_tiles(path, tile=64, overlap=16).write_labels(path)
    assert path.read_bytes() == before
