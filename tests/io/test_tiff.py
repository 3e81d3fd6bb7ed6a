"""Is the page, the channel, the projection read that was asked for, and the rest told of?"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffinst.config import Reading
from diffinst.io import images
from diffinst.io.depth import STRETCHED
from diffinst.io.images import ImageReadError, read, read_image

tifffile = pytest.importorskip("tifffile", reason="needs the extra 'microscopy'")

STACK = np.arange(5, dtype=np.uint8)[:, None, None] * 10 + np.zeros((5, 4, 6), np.uint8)
FULL = "full"


def grey(path: Path, reading: Reading | None = None) -> int:
    """The one value of an image that is grey and flat."""
    pixels = read_image(path, reading)
    assert np.ptp(pixels) == 0
    return int(pixels[0, 0, 0])


def test_pages_of_a_stack(tmp_path: Path) -> None:
    file = tmp_path / "z.tif"
    tifffile.imwrite(file, STACK, imagej=True, metadata={"axes": "ZYX"})
    pixels, (note,) = read(file)
    assert pixels.shape == (4, 6, 3) and not pixels.any()
    assert "z.tif (ZYX 5x4x6): holds 5 pages, the first is read; choose one by --page 0 to" in note
    assert read(file, Reading(page=3))[1] == () and grey(file, Reading(page=3)) == 30
    assert grey(file, Reading(project="max")) == 40
    assert grey(file, Reading(project="mean")) == 20
    with pytest.raises(ImageReadError, match=r"z\.tif: has no page 5; there are 5, counted from 0"):
        read_image(file, Reading(page=5))


def test_one_page_has_no_second(tmp_path: Path) -> None:
    Image.new("L", (6, 4), 9).save(tmp_path / "a.tif")
    assert grey(tmp_path / "a.tif", Reading(page=0)) == 9
    assert grey(tmp_path / "a.tif", Reading(project="mean")) == 9
    with pytest.raises(ImageReadError, match=r"a\.tif: has no page 1; there is one"):
        read_image(tmp_path / "a.tif", Reading(page=1))


@pytest.mark.parametrize("channels", [2, 4, 5])
@pytest.mark.parametrize("kind", ["imagej", "ome"])
def test_channels_that_are_no_colours_are_refused(tmp_path: Path, channels: int, kind: str) -> None:
    file = tmp_path / "c.tif"
    stack = np.stack([STACK[:channels]] * 3)  # Z C Y X
    tifffile.imwrite(
        file, stack, imagej=kind == "imagej", ome=kind == "ome", metadata={"axes": "ZCYX"}
    )
    with pytest.raises(ImageReadError, match=rf"c\.tif: holds {channels} channels \(ZCYX .*--chan"):
        read_image(file)
    assert grey(file, Reading(channel=1, page=2)) == 10
    assert grey(file, Reading(channel=channels - 1, project="max")) == 10 * (channels - 1)
    with pytest.raises(ImageReadError, match=f"has no channel {channels}; there are {channels} "):
        read_image(file, Reading(channel=channels))


def test_three_channels_are_colours_and_that_is_told(tmp_path: Path) -> None:
    file = tmp_path / "c.tif"
    tifffile.imwrite(file, STACK[:3], imagej=True, metadata={"axes": "CYX"})
    pixels, (note,) = read(file)
    assert pixels[0, 0].tolist() == [0, 10, 20]
    assert "c.tif: its 3 channels are read as red, green and blue; choose one by --channel" in note
    assert grey(file, Reading(channel=2)) == 20


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_deep_colours_keep_all_bits(tmp_path: Path, planar: str) -> None:
    file = tmp_path / "rgb.tif"
    values = np.zeros((4, 6, 3), np.uint16)
    values[..., 1], values[0, ..., 1] = 1000, 400
    stored = values if planar == "contig" else np.moveaxis(values, -1, 0)
    tifffile.imwrite(file, stored, photometric="rgb", planarconfig=planar)
    pixels, notes = read(file)
    assert pixels[..., 1].tolist() == [[102] * 6, *[[255] * 6] * 3] and notes == (STRETCHED,)
    assert read_image(file, Reading(stretch=FULL)).max() == 4  # 1000 / 257


@pytest.mark.parametrize("dtype", [np.int16, np.uint32, np.float32, np.float64])
def test_types_that_pillow_does_not_know(tmp_path: Path, dtype: type) -> None:
    file = tmp_path / "a.tif"
    tifffile.imwrite(file, (np.array([[0, 400, 1000]]) * 2.0).astype(dtype))
    assert read_image(file)[0, :, 0].tolist() == [0, 102, 255]


def test_white_may_be_zero_and_colours_may_be_numbers(tmp_path: Path) -> None:
    deep, many = tmp_path / "w.tif", tmp_path / "p.tif"
    values = np.array([[0, 39_321, 65_535]], np.uint16)
    tifffile.imwrite(deep, values, photometric="miniswhite")
    assert read_image(deep, Reading(stretch=FULL))[0, :, 0].tolist() == [255, 102, 0]
    table = np.zeros((3, 256), np.uint16)
    table[:, 30] = 65535, 0, 257 * 9
    tifffile.imwrite(many, STACK, photometric="palette", colormap=table)
    assert read_image(many, Reading(page=3))[0, 0].tolist() == [255, 0, 9]


def test_a_deep_image_is_turned_upright(tmp_path: Path) -> None:
    file = tmp_path / "a.tif"
    values = np.array([[[0, 0, 0], [65535] * 3]], np.uint16)  # black, white
    tifffile.imwrite(file, values, photometric="rgb", extratags=[(274, 3, 1, 6, True)])
    assert read_image(file)[:, :, 0].tolist() == [[0], [255]]


def test_the_largest_of_several_sizes_is_read(tmp_path: Path) -> None:
    file = tmp_path / "slide.tif"
    with tifffile.TiffWriter(file) as writer:
        writer.write(np.full((2, 3), 5, np.uint8))
        writer.write(np.full((4, 6), 9, np.uint8))
    pixels, (note,) = read(file)
    assert pixels.shape == (4, 6, 3) and "holds 1 more of other sizes" in note


def test_a_stack_of_one_header_is_read_in_full(tmp_path: Path) -> None:
    file = tmp_path / "z.tif"  # as ImageJ writes more than 4 GB
    tifffile.imwrite(file, STACK, imagej=True, metadata={"axes": "ZYX"})
    data = file.read_bytes()
    with tifffile.TiffFile(file) as tif:
        (first, second) = tif.pages[0].offset, tif.pages[1].offset
    at = data.index(second.to_bytes(4, sys.byteorder), first)  # the link to the next header
    file.write_bytes(data[:at] + b"\0" * 4 + data[at + 4 :])
    assert "holds 5 pages" in read(file)[1][0]
    assert grey(file, Reading(page=3)) == 30


def test_each_file_of_a_set_is_its_own_image(tmp_path: Path) -> None:
    planes = "".join(
        f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1">'
        f'<UUID FileName="{name}.ome.tif">urn:uuid:{name}</UUID></TiffData>'
        for z, name in enumerate("ab")
    )
    for name, value in (("a", 0), ("b", 2**32 - 1)):
        text = (
            '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="urn:uuid:{name}"><Image ID="Image:0"><Pixels ID="Pixels:0" Type="uint32" '
            'DimensionOrder="XYZCT" SizeX="6" SizeY="4" SizeZ="2" SizeC="1" SizeT="1">'
            f"{planes}</Pixels></Image></OME>"
        )
        image = np.full((4, 6), value, np.uint32)
        tifffile.imwrite(tmp_path / f"{name}.ome.tif", image, description=text, metadata=None)
    assert [grey(tmp_path / f"{name}.ome.tif", Reading(stretch=FULL)) for name in "ab"] == [0, 255]


def test_a_damaged_stack_is_named(tmp_path: Path) -> None:
    file = tmp_path / "z.tif"
    noise = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype(np.uint16)
    tifffile.imwrite(file, noise, compression="zlib", photometric="rgb")
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(ImageReadError, match=r"z\.tif: is cut short or damaged .*; copy or down"):
        read_image(file)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_too_many_pixels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "z.tif", STACK)
    monkeypatch.setattr(images, "MAX_PIXELS", 23)
    with pytest.raises(ImageReadError, match=r"z\.tif: has .*pixels, allowed are 23; cut it into"):
        read_image(tmp_path / "z.tif")


def test_without_tifffile_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tifffile.imwrite(tmp_path / "z.tif", STACK)
    Image.fromarray(np.array([[0, 400, 1000]], np.uint16)).save(tmp_path / "one.tif")
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(ImageReadError, match=r"z\.tif: .* `pip install 'diffinst\[microscopy\]'`"):
        read_image(tmp_path / "z.tif")
    assert read_image(tmp_path / "one.tif")[0, :, 0].tolist() == [0, 102, 255]  # Pillow's


def test_files_of_real_microscopes_are_read_or_refused_with_a_line(shared_dir: Path) -> None:
    folder = shared_dir / "datasets" / "raw_microscopy"
    if not folder.is_dir():
        pytest.skip(f"real microscope files not found: {folder} is no folder")
    files = [p for p in folder.rglob("*.*") if p.is_file() and p.suffix in (".tif", ".tiff")]
    files += [*folder.rglob("*.svs"), *folder.rglob("*.czi"), *folder.glob("zarr/*.zarr")]
    unread, lines = [], []
    for file in files:
        try:
            pixels, notes = read(file)
        except ImageReadError as error:
            unread.append(file)
            lines.append(str(error))
            continue
        assert pixels.ndim == 3 and pixels.dtype == np.uint8 and np.ptp(pixels) > 0
        assert STRETCHED not in notes or np.ptp(pixels) == 255
    assert len(files) - len(unread) >= 28
    assert all(line.startswith(f"{file}: ") for file, line in zip(unread, lines, strict=True))
    assert not any("\n" in line for line in lines)
    for file in unread:  # two channels or four; others' formats
        if file.suffix.startswith(".tif"):
            assert read_image(file, Reading(channel=1)).max() > 0
        else:
            assert file.suffix in (".czi", ".zarr")
