"""Do pixels without data stay out of the range, and colours of a table come out?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from diffinst.config import Reading
from diffinst.io.windows import open_windowed, source

rasterio = pytest.importorskip("rasterio")
tifffile = pytest.importorskip("tifffile")
PLACE = {"crs": "EPSG:32633", "transform": rasterio.transform.from_origin(5e5, 5e6, 10, 10)}
GONE = np.s_[:, 80:]  # columns without data


def scene(dtype: str) -> NDArray[np.generic]:
    return np.random.default_rng(0).integers(1000, 1500, (100, 100)).astype(dtype)


def written(path: Path, values: NDArray[np.generic], **about: object) -> Path:
    size = {"height": values.shape[0], "width": values.shape[1], "count": 1}
    with rasterio.open(path, "w", "GTiff", dtype=values.dtype, **size, **PLACE, **about) as file:
        file.write(values, 1)
    return path


def seen(path: Path) -> NDArray[np.uint8]:
    image = open_windowed(path, Reading())
    try:
        return image.read(0, 0, *image.shape)
    finally:
        image.close()


@pytest.mark.parametrize(
    ("dtype", "missing"),
    [("int16", -9999), ("uint16", 65535), ("float32", -3.4e38), ("float32", np.nan)],
)
def test_what_a_map_calls_no_data_has_no_part_in_the_range(
    tmp_path: Path, dtype: str, missing: float
) -> None:
    values = scene(dtype)
    alone = seen(written(tmp_path / "alone.tif", values[:, :80].copy()))
    values[GONE] = missing
    image = seen(written(tmp_path / "map.tif", values, nodata=missing))
    assert np.array_equal(image[:, :80], alone) and alone.max() == 255
    assert not image[GONE].any()


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_nan_and_infinity_have_no_part_in_the_range(tmp_path: Path, odd: float) -> None:
    values = scene("float32")
    tifffile.imwrite(tmp_path / "alone.tif", values[:, :80])
    values[GONE] = odd
    tifffile.imwrite(tmp_path / "odd.tif", values, tile=(64, 64))
    image = seen(tmp_path / "odd.tif")
    assert np.array_equal(image[:, :80], seen(tmp_path / "alone.tif"))
    assert not image[GONE].any()


def test_an_image_without_any_data_is_black(tmp_path: Path) -> None:
    values = np.full((64, 64), -1, "int16")
    assert not seen(written(tmp_path / "map.tif", values, nodata=-1)).any()


def test_one_colour_that_looks_like_no_data_is_data(tmp_path: Path) -> None:
    values = np.stack([scene("uint16"), np.zeros((100, 100), "uint16"), scene("uint16")], -1)
    values[GONE] = 0
    size = {"height": 100, "width": 100, "count": 3, "dtype": "uint16", "nodata": 0}
    with rasterio.open(tmp_path / "map.tif", "w", "GTiff", **size, **PLACE) as file:
        file.write(np.moveaxis(values, -1, 0))
    image = seen(tmp_path / "map.tif")
    assert image[:, :80, 0].all() and not image[GONE].any()


def test_data_that_a_sample_has_not_met_is_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "SIDE", 8)
    monkeypatch.setattr(source, "WINDOWS", 2)
    monkeypatch.setattr(source, "SAMPLED", 100)
    values = np.zeros((100, 100), "uint16")
    values[40:60, 40:60] = scene("uint16")[:20, :20]  # samples lie in the corners
    image = seen(written(tmp_path / "map.tif", values, nodata=0))
    assert image.max() == 255 and not image[:40].any()


def test_a_map_with_a_table_of_colours(tmp_path: Path) -> None:
    path, values = tmp_path / "map.tif", np.arange(64, dtype="uint8").reshape(8, 8)
    written(path, values, photometric="palette")
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {i: (255 - i, i, 7, 255) for i in range(256)})
    expected = np.stack([255 - values, values, np.full_like(values, 7)], axis=-1)
    assert np.array_equal(seen(path), expected)
