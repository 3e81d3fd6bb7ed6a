"""Is the size of a pixel read where files say it, and only there?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffinst.config import Reading
from diffinst.io.microns import microns_per_pixel
from diffinst.io.windows import open_windowed

tifffile = pytest.importorskip("tifffile")
PIXELS = np.zeros((4, 6), np.uint8)


def test_ome_tiff(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    about = {"axes": "YX", "PhysicalSizeX": 500.0, "PhysicalSizeXUnit": "nm"}
    tifffile.imwrite(path, PIXELS, metadata={**about, "PhysicalSizeY": 0.5})  # µm by default
    assert microns_per_pixel(path) == 0.5


@pytest.mark.parametrize("unit", ["micron", "um", "\\u00B5m"])
def test_imagej(tmp_path: Path, unit: str) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, imagej=True, resolution=(4, 4), metadata={"unit": unit})
    assert microns_per_pixel(path) == 0.25


def test_centimetres(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, resolution=(20000, 20000), resolutionunit="CENTIMETER")
    assert microns_per_pixel(path) == 0.5


def test_what_says_nothing_of_it(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    for inches in ((72, 72), None):
        tifffile.imwrite(path, PIXELS, resolution=inches, resolutionunit="INCH")
        assert microns_per_pixel(path) is None
    tifffile.imwrite(path, PIXELS, resolution=(20000, 10000), resolutionunit="CENTIMETER")
    assert microns_per_pixel(path) is None  # not square
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    assert microns_per_pixel(tmp_path / "a.png") is None
    path.write_bytes(path.read_bytes()[:20])
    assert microns_per_pixel(path) is None
    assert microns_per_pixel(tmp_path / "gone.tif") is None


def test_of_several_images_that_of_the_largest(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        for side, mpp in ((16, 4.0), (64, 0.5)):
            about = {"PhysicalSizeX": mpp, "PhysicalSizeY": mpp}
            file.write(np.zeros((side, side), np.uint8), metadata={"axes": "YX", **about})
    assert microns_per_pixel(path) == 0.5
    image = open_windowed(path, Reading())
    assert (image.shape, image.mpp) == ((64, 64), 0.5)
    image.close()


@pytest.mark.parametrize(
    ("said", "mpp"),
    [
        ('PhysicalSizeX="0.5" PhysicalSizeXUnit="&#181;m"', 0.5),
        ('PhysicalSizeX="500" PhysicalSizeXUnit="nm"', 0.5),
        ('PhysicalSizeX="abc"', None),
    ],
)
def test_what_is_said_oddly_is_no_error(tmp_path: Path, said: str, mpp: float | None) -> None:
    size = 'DimensionOrder="XYCZT" Type="uint8" SizeX="6" SizeY="4" SizeC="1" SizeZ="1" SizeT="1"'
    text = f"<OME><Image><Pixels {size} {said}><TiffData/></Pixels></Image></OME>"
    tifffile.imwrite(tmp_path / "a.ome.tif", PIXELS, description=text, metadata=None)
    assert microns_per_pixel(tmp_path / "a.ome.tif") == mpp
    image = open_windowed(tmp_path / "a.ome.tif", Reading())
    assert image.mpp == mpp
    image.close()


def test_a_resolution_of_nothing(tmp_path: Path) -> None:
    about = {"resolution": ((0, 1), (0, 1)), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, metadata=None, **about)
    image = open_windowed(tmp_path / "a.tif", Reading())
    assert image.mpp is None
    image.close()
