"""Does each reader give the very pixels of a window, and say what is wrong in one line?"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from diffinst.config import Reading
from diffinst.io.images import ImageReadError
from diffinst.io.windows import WindowedImage, is_bright_field, open_windowed

tifffile = pytest.importorskip("tifffile")
zarr = pytest.importorskip("zarr")

Pixels = NDArray[np.uint8]
WINDOW = (70, 130, 90, 110)  # y, x, height, width: over the borders of tiles of 64 pixels


@pytest.fixture
def rgb() -> Pixels:
    """Every pixel another colour than its neighbours."""
    y, x = np.mgrid[:200, :300]
    return np.stack([y, x % 256, (y * 3 + x * 5) % 256], axis=2).astype(np.uint8)


def part(image: Pixels) -> Pixels:
    y, x, height, width = WINDOW
    window: Pixels = image[y : y + height, x : x + width]
    return window


def opened(path: Path, **reading: object) -> WindowedImage:
    return open_windowed(path, Reading.of(**reading))


def test_a_tiled_tiff_with_its_pyramid_and_resolution(tmp_path: Path, rgb: Pixels) -> None:
    path = tmp_path / "slide.tif"
    with tifffile.TiffWriter(path) as file:
        shared = {"tile": (64, 64), "compression": "zlib", "photometric": "rgb"}
        resolution = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
        file.write(rgb, subifds=1, **shared, **resolution)
        file.write(rgb[::2, ::2], subfiletype=1, **shared)
    image = opened(path)
    assert (image.shape, image.levels, image.mpp) == ((200, 300), (1.0, 2.0), 0.5)
    assert np.array_equal(image.read(*WINDOW), part(rgb))
    assert np.array_equal(image.read(10, 20, 30, 40, level=1), rgb[::2, ::2][10:40, 20:60])
    image.close()


def test_levels_are_counted_along_the_longer_side(tmp_path: Path) -> None:
    path = tmp_path / "strip.zarr"
    group = zarr.open_group(path, mode="w", zarr_version=2)
    group.create_dataset("0", shape=(33, 1600), chunks=(33, 64), dtype="u1")
    group.create_dataset("1", shape=(2, 100), chunks=(2, 64), dtype="u1")
    axes, datasets = [{"name": "y"}, {"name": "x"}], [{"path": "0"}, {"path": "1"}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    image = opened(path)
    assert (image.levels, image.sizes) == ((1.0, 16.0), ((33, 1600), (2, 100)))


def test_a_tiff_in_one_piece_is_mapped(tmp_path: Path, rgb: Pixels) -> None:
    path = tmp_path / "plain.tif"
    tifffile.imwrite(path, rgb[..., 0].astype(">u2"), byteorder=">")
    image = opened(path, stretch="full")
    expected = np.rint(part(rgb[..., :1]) / 65535 * 255).astype(np.uint8)
    assert np.array_equal(image.read(*WINDOW), np.broadcast_to(expected, (90, 110, 3)))


def test_floats_in_one_piece_are_mapped_and_nan_is_black(tmp_path: Path) -> None:
    path = tmp_path / "floats.tif"
    values = np.tile(np.linspace(0, 1, 256, dtype=np.float32), (128, 1))
    values[7, 200] = np.nan
    tifffile.imwrite(path, values)
    found = opened(path).read(0, 0, 128, 256)
    assert found[7, 200].tolist() == [0, 0, 0]
    assert found[0, :, 0].tolist() == [*range(256)]
    assert np.isnan(tifffile.imread(path)[7, 200])  # the file is as it was


def test_pages_and_channels_of_an_ome_tiff(tmp_path: Path, rgb: Pixels) -> None:
    path = tmp_path / "cells.ome.tif"
    stack = np.stack([np.stack([rgb[..., c] // (z + 1) for c in range(2)]) for z in range(3)])
    metadata = {"axes": "ZCYX", "PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm"}
    tifffile.imwrite(path, stack, tile=(64, 64), compression="zlib", metadata=metadata)
    image = opened(path, page=2, channel=1)
    assert image.mpp == 0.25
    assert np.array_equal(image.read(*WINDOW)[..., 0], part(stack[2, 1]))
    brightest = opened(path, channel=0, project="max")
    assert np.array_equal(brightest.read(*WINDOW)[..., 0], part(stack[0, 0]))
    with pytest.raises(ImageReadError, match=r"cells.*2 channels.*--channel 0"):
        opened(path)


def test_deep_values_have_one_range_in_all_windows(tmp_path: Path) -> None:
    path = tmp_path / "deep.tif"
    values = np.full((600, 600), 1000, np.uint16)
    values[:300, :300] = np.linspace(1000, 3000, 300).astype(np.uint16)
    tifffile.imwrite(path, values, tile=(64, 64), compression="zlib")
    image = opened(path)
    dim, bright = image.read(400, 400, 50, 50), image.read(0, 280, 20, 20)
    assert dim.max() == 0  # alone it would be stretched
    assert bright.max() >= 250
    assert any("of the whole image" in note for note in image.notes)


def test_an_ome_zarr_with_its_levels_and_micrometres(tmp_path: Path, rgb: Pixels) -> None:
    path = tmp_path / "cells.zarr"
    group = zarr.open_group(path, mode="w", zarr_version=2)
    moved = np.moveaxis(rgb, 2, 0)
    for name, step in (("0", 1), ("1", 2)):
        data = moved[:, ::step, ::step]
        array = group.create_dataset(name, shape=data.shape, chunks=(1, 64, 64), dtype="u1")
        array[:] = data
    datasets = [
        {"path": name, "coordinateTransformations": [{"type": "scale", "scale": [1, s, s]}]}
        for name, s in (("0", 0.5), ("1", 1.0))
    ]
    axes = [{"name": "c"}, *({"name": n, "unit": "micrometer"} for n in "yx")]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    image = opened(path)
    assert (image.shape, image.levels, image.mpp) == ((200, 300), (1.0, 2.0), 0.5)
    assert np.array_equal(image.read(*WINDOW), part(rgb))
    assert np.array_equal(image.read(5, 6, 20, 30, level=1), rgb[::2, ::2][5:25, 6:36])


def test_an_aperio_slide_with_its_micrometres(tmp_path: Path, rgb: Pixels) -> None:
    pytest.importorskip("openslide")
    path = tmp_path / "slide.svs"
    said = "Aperio Image Library v12.0\r\n300x200 [0,0 300x200] (64x64) |AppMag = 20|MPP = 0.499"
    tile = {"tile": (64, 64), "compression": "zlib", "photometric": "rgb"}
    tifffile.imwrite(path, rgb, description=said, metadata=None, **tile)
    image = opened(path)
    assert (image.shape, image.mpp) == ((200, 300), 0.499)
    assert np.array_equal(image.read(*WINDOW), part(rgb))
    assert is_bright_field(path)


def test_a_geotiff_with_its_map(tmp_path: Path, rgb: Pixels) -> None:
    rasterio = pytest.importorskip("rasterio")
    path = tmp_path / "map.tif"
    place = rasterio.Affine(0.5, 0, 400_000, 0, -0.5, 5_000_000)
    profile = {"driver": "GTiff", "height": 200, "width": 300, "count": 3, "dtype": "uint8"}
    tiled = {"tiled": True, "blockxsize": 64, "blockysize": 64, "crs": "EPSG:32633"}
    with rasterio.open(path, "w", transform=place, **profile, **tiled) as file:
        file.write(np.moveaxis(rgb, 2, 0))
    image = opened(path)
    assert np.array_equal(image.read(*WINDOW), part(rgb))
    assert image.transform == (0.5, 0, 400_000, 0, -0.5, 5_000_000)
    assert (image.crs, image.mpp) == ("EPSG:32633", 500_000)


def test_what_pillow_reads_and_arrays_are_windows_too(tmp_path: Path, rgb: Pixels) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(rgb).save(path)
    for source in (path, rgb):
        image = open_windowed(source, Reading())
        assert np.array_equal(image.read(*WINDOW), part(rgb))
        assert isinstance(image, WindowedImage)
        assert open_windowed(image, Reading()) is image


def test_a_truncated_tiff_names_the_file_and_the_window(tmp_path: Path, rgb: Pixels) -> None:
    path = tmp_path / "cut.tif"
    noise = np.random.default_rng(0).integers(0, 256, rgb.shape, np.uint8)
    tifffile.imwrite(path, noise, tile=(64, 64), compression="zlib", photometric="rgb")
    path.write_bytes(path.read_bytes()[:-60_000])
    image = opened(path)
    image.read(0, 0, 60, 60)
    with pytest.raises(ImageReadError, match=r"cut\.tif: window y 140, x 240, 60x60.*cut short"):
        image.read(140, 240, 60, 60)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text.tif", b"no tiff at all", r"text\.tif: is not an image"),
        ("bad.tif", b"II*\0\xff\xff\xff\x00", r"bad\.tif: is damaged or no TIFF"),
        ("slide.svs", b"no slide", r"slide\.svs: openslide cannot read it"),
        ("scan.czi", b"ZISRAWFILE", r"scan\.czi: is a Zeiss CZI file.*OME-TIFF"),
        ("none.png", None, r"none\.png"),
    ],
)
def test_files_that_are_no_image(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageReadError, match=message):
        opened(tmp_path / name)


def test_a_zarr_without_an_image(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "empty.zarr", mode="w", zarr_version=2)
    with pytest.raises(ImageReadError, match=r"empty\.zarr: is a Zarr group without multiscales"):
        opened(tmp_path / "empty.zarr")


@pytest.mark.parametrize(
    ("package", "name", "advice"),
    [
        ("zarr", "a.tif", r"pip install 'diffinst\[microscopy\]'"),
        ("openslide", "a.svs", r"pip install 'diffinst\[slides\]'"),
        ("rasterio", "a.jp2", r"pip install 'diffinst\[geo\]'"),
    ],
)
def test_a_missing_package_is_one_line_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, name: str, advice: str
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8), np.uint8))
    (tmp_path / name).touch()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImageReadError, match=rf"{name}: .*{advice}"):
        opened(tmp_path / name)


def test_a_file_stored_in_one_huge_piece_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rgb: Pixels
) -> None:
    monkeypatch.setattr("diffinst.io.windows.axes.LARGEST_CHUNK", 10_000)
    path = tmp_path / "strip.tif"
    tifffile.imwrite(path, rgb, rowsperstrip=200, compression="zlib", photometric="rgb")
    with pytest.raises(ImageReadError, match=r"strip\.tif: is stored in pieces of 200x300x3"):
        opened(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_read_access(tmp_path: Path, rgb: Pixels) -> None:
    path = tmp_path / "mine.tif"
    tifffile.imwrite(path, rgb, photometric="rgb")
    path.chmod(0)
    with pytest.raises(ImageReadError, match=r"mine\.tif: may not be read"):
        opened(path)
