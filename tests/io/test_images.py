"""Every kind of image becomes RGB uint8; every unreadable one says why."""

import os
import re
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from diffinst.config import Reading
from diffinst.io import images
from diffinst.io.depth import STRETCHED
from diffinst.io.images import (
    IMAGE_SUFFIXES,
    ImageReadError,
    ImageSource,
    list_images,
    read,
    read_image,
)
from diffinst.io.listing import images_below

FULL = Reading(stretch="full")
RED, GREEN, WHITE = [255, 0, 0], [0, 255, 0], [255, 255, 255]


def red_green() -> Image.Image:
    """Two pixels side by side."""
    image = Image.new("RGB", (2, 1), tuple(RED))
    image.putpixel((1, 0), tuple(GREEN))
    return image


def png(rows: np.ndarray, colour_type: int) -> bytes:
    """A 16-bit PNG by hand, (height, width, channels): Pillow cannot write colour ones."""
    height, width = rows.shape[:2]

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    data = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


# --- files


def test_colour_file_is_read_exactly(tmp_path: Path) -> None:
    red_green().save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.tolist() == [[RED, GREEN]]
    assert image.dtype == np.uint8
    assert image.flags["C_CONTIGUOUS"]
    assert image.flags["WRITEABLE"]


def test_path_may_be_a_string(tmp_path: Path) -> None:
    red_green().save(tmp_path / "a.bmp")
    assert read_image(str(tmp_path / "a.bmp")).tolist() == [[RED, GREEN]]


# Where the two pixels lie once the viewer has turned the image as the tag says (EXIF 2.3, 4.6.4).
ORIENTED = {
    1: [[RED, GREEN]],
    2: [[GREEN, RED]],
    3: [[GREEN, RED]],
    4: [[RED, GREEN]],
    5: [[RED], [GREEN]],
    6: [[RED], [GREEN]],
    7: [[GREEN], [RED]],
    8: [[GREEN], [RED]],
}


@pytest.mark.parametrize(("orientation", "upright"), ORIENTED.items())
@pytest.mark.parametrize("suffix", ["png", "tiff", "webp"])
def test_file_is_turned_upright(
    tmp_path: Path, suffix: str, orientation: int, upright: list[list[list[int]]]
) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    file = tmp_path / f"a.{suffix}"
    red_green().save(file, exif=exif, lossless=True)
    assert read_image(file).tolist() == upright


def test_pil_image_is_turned_upright_and_left_as_it_was() -> None:
    source = red_green()
    source.getexif()[274] = 6
    assert read_image(source).tolist() == [[RED], [GREEN]]
    assert source.size == (2, 1)
    assert source.getexif()[274] == 6


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bit_grey_file_keeps_its_full_range(tmp_path: Path, suffix: str) -> None:
    # 257 * k is exactly k; 128 is below half a step, 129 above.
    grey = np.array([[0, 128, 129, 257, 257 * 100, 65535]], np.uint16)
    Image.fromarray(grey).save(tmp_path / f"a.{suffix}")
    image = read_image(tmp_path / f"a.{suffix}", FULL)
    assert image[0, :, 0].tolist() == [0, 0, 1, 1, 100, 255]


def test_16_bit_colour_file_keeps_its_full_range(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(np.array([[[0, 257 * 100, 65535]]]), colour_type=2))
    assert read_image(tmp_path / "a.png", FULL).tolist() == [[[0, 100, 255]]]


@pytest.mark.parametrize(("channels", "colour_type"), [(3, 2), (4, 6)])
def test_no_bit_of_a_16_bit_colour_file_is_lost(
    tmp_path: Path, channels: int, colour_type: int
) -> None:
    values = np.zeros((1, 3, channels), np.uint16)
    values[0, :, 0] = 0, 100, 250  # all below 256: the upper bytes are zero
    values[..., 3:] = 65535
    (tmp_path / "a.png").write_bytes(png(values, colour_type))
    assert read_image(tmp_path / "a.png")[0, :, 0].tolist() == [0, 102, 255]


def test_16_bit_grey_with_alpha_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(np.zeros((1, 1, 2)), colour_type=4))
    with pytest.raises(ImageReadError, match=r"a\.png: is 16-bit grey with alpha; save it without"):
        read_image(tmp_path / "a.png")


def test_first_image_of_an_animation_counts(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (2, 2), "red"), Image.new("RGB", (2, 2), "lime")
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    pixels, (note,) = read(tmp_path / "a.gif")
    assert pixels[0, 0].tolist() == RED
    assert "a.gif: holds 2 pages, the first is read; choose one by --page 0 to 1" in note
    assert read_image(tmp_path / "a.gif", Reading(page=1))[0, 0].tolist() == GREEN
    brightest, notes = read(tmp_path / "a.gif", Reading(project="max"))
    assert brightest[0, 0].tolist() == [255, 255, 0] and notes == ()


def test_the_frame_that_a_pil_image_stands_at_counts(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (2, 2), "red"), Image.new("RGB", (2, 2), "lime")
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    with Image.open(tmp_path / "a.gif") as image:
        image.seek(1)
        assert read_image(image)[0, 0].tolist() == GREEN
        assert read_image(image, Reading(page=0))[0, 0].tolist() == RED
        assert image.tell() == 1


def test_cmyk_jpeg(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - RED).max() <= 3


# --- PIL modes


def palette(colour: str) -> Image.Image:
    return Image.new("RGB", (1, 1), colour).convert("P", palette=Image.Palette.ADAPTIVE)


def with_colour_key(mode: str) -> Image.Image:
    image = Image.new(mode, (1, 1), 0)
    image.info["transparency"] = 0 if mode == "L" else (0, 0, 0)
    return image


@pytest.mark.parametrize(
    ("image", "pixel"),
    [
        pytest.param(Image.new("1", (1, 1), 1), WHITE, id="1-bit"),
        pytest.param(Image.new("L", (1, 1), 7), [7, 7, 7], id="grey"),
        pytest.param(palette("red"), RED, id="palette"),
        pytest.param(Image.new("CMYK", (1, 1), (0, 255, 255, 0)), RED, id="CMYK"),
        pytest.param(Image.new("HSV", (1, 1), (0, 255, 255)), RED, id="HSV"),
        # 0.2 * 0 + 0.8 * 255 = 204, alpha 51 of 255
        pytest.param(Image.new("LA", (1, 1), (0, 51)), [204] * 3, id="grey, alpha"),
        pytest.param(Image.new("La", (1, 1), (0, 51)), [204] * 3, id="grey, premultiplied"),
        pytest.param(Image.new("RGBA", (1, 1), (255, 0, 0, 51)), [255, 204, 204], id="alpha"),
        pytest.param(Image.new("RGBA", (1, 1), (9, 8, 7, 255)), [9, 8, 7], id="opaque"),
        pytest.param(Image.new("RGBA", (1, 1), (9, 8, 7, 0)), WHITE, id="transparent"),
        pytest.param(with_colour_key("L"), WHITE, id="grey, colour key"),
        pytest.param(with_colour_key("RGB"), WHITE, id="RGB, colour key"),
        pytest.param(Image.new("I;16", (1, 1), 257 * 9), [9, 9, 9], id="16-bit"),
        pytest.param(Image.new("I", (1, 1), 257 * 9), [9, 9, 9], id="32-bit"),
        pytest.param(Image.new("F", (1, 1), 0.2), [51, 51, 51], id="float"),
    ],
)
def test_pil_mode(image: Image.Image, pixel: list[int]) -> None:
    assert read_image(image, FULL).tolist() == [[pixel]]


# --- arrays and tensors


@pytest.mark.parametrize(
    ("array", "pixel"),
    [
        pytest.param(np.array([[7]], np.uint8), [7, 7, 7], id="grey"),
        pytest.param(np.array([[[7]]], np.uint8), [7, 7, 7], id="one channel"),
        pytest.param(np.array([[[1, 2, 3]]], np.uint8), [1, 2, 3], id="RGB"),
        pytest.param(np.array([[[255, 0, 0, 51]]], np.uint8), [255, 204, 204], id="RGBA"),
        # (1 * 254 + 255 * 1) / 255 = 1.996
        pytest.param(np.array([[[1, 1, 1, 254]]], np.uint8), [2, 2, 2], id="RGBA is rounded"),
        pytest.param(np.array([[257 * 7]], np.uint16), [7, 7, 7], id="16-bit"),
        pytest.param(np.array([[257 * 7]], ">u2"), [7, 7, 7], id="16-bit, other byte order"),
        pytest.param(np.array([[[0.2, 0.0, 1.0]]], np.float16), [51, 0, 255], id="float16"),
        pytest.param(np.array([[[0.2, 0.0, 1.0]]], np.float64), [51, 0, 255], id="float64"),
        pytest.param(np.array([[[-0.001, 0.5, 1.001]]]), [0, 128, 255], id="overshoot"),
        pytest.param(np.array([[[1.0, 0.0, 0.0, 0.2]]]), [255, 204, 204], id="float RGBA"),
    ],
)
def test_array(array: np.ndarray, pixel: list[int]) -> None:
    assert read_image(array, FULL).tolist() == [[pixel]]


def test_one_channel_of_many() -> None:
    array = np.arange(10, dtype=np.uint8).reshape(1, 2, 5)
    assert read_image(array, Reading(channel=4))[0, :, 0].tolist() == [4, 9]
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    assert read_image(tensor, Reading(channel=4))[0, :, 0].tolist() == [4, 9]
    assert read_image(red_green(), Reading(channel=1))[0, :, 0].tolist() == [0, 255]
    with pytest.raises(ImageReadError, match=r"array: has no channel 5; there are 5 \(shape 1x2x5"):
        read_image(array, Reading(channel=5))
    with pytest.raises(ImageReadError, match="array: has no page 1; there is one, counted from 0"):
        read_image(array, Reading(channel=0, page=1))


@pytest.mark.parametrize(
    "source",
    [
        np.array([[1000, 1400, 2000]], np.uint16),
        np.array([[1000, 1400, 2000]], np.uint32),
        np.array([[-500, -100, 500]], np.int16),
        np.array([[1.0, 41.0, 101.0]], np.float32),
        torch.tensor([[[1000, 1400, 2000]]], dtype=torch.int32),
        torch.tensor([[[-1.0, -0.2, 1.0]]]),
        Image.fromarray(np.array([[-500, -100, 500]], np.int32)),
        Image.fromarray(np.array([[2, 4, 7]], np.float32)),
    ],
)
def test_values_of_more_than_8_bits_are_stretched_and_that_is_told(source: ImageSource) -> None:
    pixels, notes = read(source)
    assert pixels[0, :, 0].tolist() == [0, 102, 255] and notes == (STRETCHED,)


@pytest.mark.parametrize(
    "turned", [lambda a: a[:, ::-1], lambda a: a.transpose(1, 0, 2), np.asfortranarray]
)
def test_result_is_a_contiguous_copy(turned: Callable[[np.ndarray], np.ndarray]) -> None:
    source = turned(np.arange(24, dtype=np.uint8).reshape(2, 4, 3))
    before = source.copy()
    image = read_image(source)
    np.testing.assert_array_equal(image, source)
    assert image.flags["C_CONTIGUOUS"]
    image[:] = 0
    np.testing.assert_array_equal(source, before)


@pytest.mark.parametrize(
    ("tensor", "pixel"),
    [
        pytest.param(torch.tensor([7, 8, 9], dtype=torch.uint8), [7, 8, 9], id="uint8"),
        pytest.param(torch.tensor([7], dtype=torch.uint8), [7, 7, 7], id="grey"),
        pytest.param(torch.tensor([0.2, 0.0, 1.0]), [51, 0, 255], id="float"),
        pytest.param(torch.tensor([0.5, 0.0, 1.0]).bfloat16(), [128, 0, 255], id="bfloat16"),
        pytest.param(torch.tensor([0.2, 0.0, 1.0], requires_grad=True), [51, 0, 255], id="grad"),
    ],
)
def test_tensor(tensor: torch.Tensor, pixel: list[int]) -> None:
    assert read_image(tensor[:, None, None]).tolist() == [[pixel]]


def test_tensor_rows_stay_rows() -> None:
    tensor = torch.arange(6, dtype=torch.uint8).reshape(1, 2, 3)
    assert read_image(tensor)[..., 2].tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.gpu
def test_tensor_on_a_gpu() -> None:
    assert read_image(torch.ones(3, 1, 1, device="cuda")).tolist() == [[WHITE]]


# --- large images


def test_images_beyond_pillows_limit_are_read_and_the_limit_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (40, 30)).save(tmp_path / "a.tiff")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # 1200 pixels: more than twice that
    with pytest.raises(Image.DecompressionBombError):
        Image.open(tmp_path / "a.tiff")
    assert read_image(tmp_path / "a.tiff").shape == (30, 40, 3)
    assert Image.MAX_IMAGE_PIXELS == 10


@pytest.mark.parametrize("pixels", [1199, 599, 10])  # Pillow: silent, warns, refuses
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_images_beyond_our_limit_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pixels: int
) -> None:
    Image.new("L", (40, 30)).save(tmp_path / "a.png")
    monkeypatch.setattr(images, "MAX_PIXELS", pixels)
    before = Image.MAX_IMAGE_PIXELS
    message = rf"a\.png: has .*pixels, allowed are {pixels}; cut it into tiles, or raise .*MAX_PIX"
    with pytest.raises(ImageReadError, match=message):
        read_image(tmp_path / "a.png")
    with pytest.raises(ImageReadError, match="PIL image: has 1200 pixels"):
        read_image(Image.new("L", (40, 30)))
    assert before == Image.MAX_IMAGE_PIXELS


def test_pillows_limit_is_put_back_after_reading_in_threads(tmp_path: Path) -> None:
    file, before = tmp_path / "a.png", Image.MAX_IMAGE_PIXELS
    Image.new("RGB", (64, 64)).save(file)
    threads = [threading.Thread(target=lambda: [read_image(file) for _ in range(20)]) for _ in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert before == Image.MAX_IMAGE_PIXELS


# --- what cannot be read


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ImageReadError, match=r"no\.png: there is no such file or folder; check"):
        read_image(tmp_path / "no.png")


def test_missing_relative_file_says_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    where = re.escape(str(tmp_path))
    with pytest.raises(ImageReadError, match=rf"no\.png: there is no such .* \(looked in {where}"):
        read_image("no.png")


def test_address() -> None:
    with pytest.raises(ImageReadError, match=r"example\.org.*not fetched; download the image"):
        read_image("https://example.org/a.png")


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageReadError, match="is a folder; give one image file"):
        read_image(tmp_path)


def test_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageReadError, match="pipe: is a device or pipe; save the image"):
        read_image(tmp_path / "pipe")


def test_impossible_name() -> None:
    with pytest.raises(ImageReadError, match=r"cannot be opened .*too long.*; check the path"):
        read_image("a" * 5000)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_forbidden_file(tmp_path: Path) -> None:
    red_green().save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(ImageReadError, match=r"a\.png: may not be read; check its permissions"):
        read_image(tmp_path / "a.png")


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(ImageReadError, match=r"a\.png: the file is empty \(0 bytes\); copy or"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff", "webp", "gif", "bmp"])
def test_truncated_file(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    file = tmp_path / f"a.{suffix}"
    Image.fromarray(noise).save(file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ImageReadError, match=rf"a\.{suffix}: is .*damaged.*again"):
        read_image(file)


def test_truncated_file_opened_by_the_caller(tmp_path: Path) -> None:
    file = tmp_path / "a.bmp"
    red_green().resize((64, 64)).save(file)
    file.write_bytes(file.read_bytes()[:1000])
    with (
        Image.open(file) as image,
        pytest.raises(ImageReadError, match=r"PIL image .*a\.bmp: is cut short or damaged \(.*t"),
    ):
        read_image(image)


def test_file_that_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("a table, not an image", encoding="utf-8")
    with pytest.raises(ImageReadError, match=r"a\.png: is not an image in a format that Pillow k"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"bytes", "from bytes; give a path, a PIL image, a numpy array or a torch tensor"),
        ([Path("a.png")], r"from list; give .* \(several images: one at a time\)"),
        (Image.new("RGB", (0, 5)), r"PIL image: its size \(w, h\) is \(0, 5\), no pixel; leave"),
        (Image.new("I", (1, 1), -1), "PIL image: its type is int32, values from -1 to -1; with"),
        (Image.new("I", (1, 1), 65536), "values from 65536 to 65536; with stretch 'full' allowed"),
        (Image.new("F", (1, 1), 9), "float values run from 9 to 9; with stretch 'full' allowed"),
        (np.zeros(3, np.uint8), r"array: its shape is \(3,\); allowed are \(height, width\)"),
        (np.zeros((1, 4, 4, 3)), r"shape is \(1, 4, 4, 3\); .*one image at a time$"),
        (np.zeros((4, 4, 2)), r"shape is \(4, 4, 2\); .*\(height, width, 1 or 3 or 4\)"),
        (np.zeros((3, 4, 5)), r"\(3, 4, 5\); .*; if channels come first, use array\.transpose\(1,"),
        (np.zeros((0, 4, 3)), r"array: its shape is \(0, 4, 3\), without a pixel; leave it out"),
        (np.zeros((4, 0)), r"shape is \(4, 0, 1\), without a pixel"),
        (
            np.zeros((2, 2), int),
            "array: its type is int64, values from 0 to 0; with stretch",
        ),
        (np.zeros((2, 2), np.int8), "array: its type is int8; allowed are uint8, other integers"),
        (np.zeros((2, 2), bool), "array: its type is bool; allowed are"),
        (np.array([[0.0, np.nan]]), "array: holds NaN or infinite values; replace them"),
        (np.array([[0.0, np.inf]]), "array: holds NaN or infinite values; replace them"),
        (np.array([[0.0, 255.0]]), "from 0 to 255; .* allowed are 0 to 1; divide them .*or use st"),
        (np.array([[-0.5, 0.5]]), r"float values run from -0\.5 to 0\.5; .* are 0 to 1"),
        (torch.zeros(4, 4), r"tensor: its shape is \(4, 4\); allowed is \(1 or 3, height, width\)"),
        (torch.zeros(1, 3, 4, 4), r"tensor: its shape is \(1, 3, 4, 4\); .*, one image$"),
        (torch.zeros(4, 5, 3), r"\(4, 5, 3\).*; if channels come last, use tensor\.permute\(2, 0"),
        (torch.zeros(3, 0, 4), r"tensor: its shape is \(0, 4, 3\), without a pixel"),
        (
            torch.zeros(3, 4, 4).long(),
            "tensor: its type is int64, values from 0 to 0; with stretch",
        ),
        (torch.zeros(3, 4, 4) > 0, "tensor: its type is bool; allowed are uint8, other integers"),
        (torch.full((3, 1, 1), 255.0), "tensor: its float values run from 255 to 255; with str"),
        (torch.full((3, 1, 1), torch.nan), "tensor: holds NaN or infinite values"),
    ],
)
def test_unreadable_value(source: object, message: str) -> None:
    with pytest.raises(ImageReadError, match=message):
        read_image(source, FULL)  # type: ignore[arg-type]


def test_an_image_that_does_not_fit_in_memory_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(image: Image.Image) -> None:
        raise MemoryError  # as Pillow does, without a text

    red_green().save(tmp_path / "a.png")
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", load)
    with pytest.raises(
        ImageReadError, match=r"a\.png: does not fit in memory; cut it into"
    ) as said:
        read_image(tmp_path / "a.png")
    assert isinstance(said.value, MemoryError)


@pytest.mark.parametrize("target", ["gone.png", "a.png"])
def test_link_that_leads_nowhere(tmp_path: Path, target: str) -> None:
    link = tmp_path / "a.png"  # to itself, or to nothing
    link.symlink_to(tmp_path / target)
    with pytest.raises(ImageReadError, match=r"a\.png: (is a link to .*gone|cannot be opened .*)"):
        read_image(link)


# --- listing


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    names = ["b.PNG", "a.jpg", "notes.txt", "sub/c.tiff", ".hidden.png", ".cache/d.png", "sub2/"]
    for name in names:
        path = tmp_path / "folder" / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.touch()
    return tmp_path / "folder"


def test_folders_are_searched_in_sorted_order(folder: Path) -> None:
    found = list_images([folder])
    assert [path.relative_to(folder).as_posix() for path in found] == [
        "a.jpg",
        "b.PNG",
        "sub/c.tiff",
    ]


def test_a_folder_of_any_length_is_walked_without_holding_it(folder: Path) -> None:
    (folder / "a.png").mkdir()
    (folder / "a.png" / "z.png").touch()
    names = (os.path.relpath(path, folder) for path in images_below(folder))
    assert next(names) == "a.jpg"
    (folder / "sub" / "0.png").touch()  # is seen: nobody has looked there yet
    assert list(names) == ["b.PNG", "a.png/z.png", "sub/0.png", "sub/c.tiff"]
    assert sorted(map(Path, images_below(folder))) == list_images([folder])


def test_files_stay_as_given_and_in_place(folder: Path) -> None:
    given: list[str | Path] = [folder / "sub", str(folder / "notes.txt"), folder / "a.jpg"]
    assert list_images(given) == [folder / "sub/c.tiff", folder / "notes.txt", folder / "a.jpg"]


def test_a_pattern_stands_for_its_files(folder: Path) -> None:
    assert list_images([folder / "*.jpg", folder / "sub"]) == [
        folder / "a.jpg",
        folder / "sub/c.tiff",
    ]
    assert list_images([folder / "**" / "*.tif*"]) == [folder / "sub/c.tiff"]
    with pytest.raises(ImageReadError, match=r"\*\.nef: no file matches"):
        list_images([folder / "*.nef"])


def test_a_single_path_is_a_list_of_one(folder: Path) -> None:
    assert list_images(str(folder / "a.jpg")) == [folder / "a.jpg"]


def test_every_suffix_can_be_read() -> None:
    Image.init()
    readable = {end for end, name in Image.registered_extensions().items() if name in Image.OPEN}
    assert set(IMAGE_SUFFIXES) - {".avif"} <= readable  # .avif: not in every build of Pillow


def test_missing_path_is_refused(folder: Path) -> None:
    with pytest.raises(ImageReadError, match="nowhere: there is no such file or folder; check"):
        list_images([folder, folder / "nowhere"])


@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_name_is_not_the_current_folder(empty: str) -> None:
    for look in (list_images, read_image):
        with pytest.raises(ImageReadError, match="the name is empty; give a file or folder"):
            look(empty)


def test_a_folder_of_other_files_says_what_they_are(folder: Path) -> None:
    (folder / "sub2" / "a.czi").touch()
    message = r"no images in .*; .*a\.czi is a Zeiss CZI file, which is not read; save its image as"
    with pytest.raises(ImageReadError, match=message):
        list_images([folder / "sub2"])


def test_nothing_found_says_what_was_looked_for(folder: Path) -> None:
    message = rf"no images in {re.escape(str(folder / 'sub2'))}; .*\.png .*; name a folder"
    with pytest.raises(ImageReadError, match=message):
        list_images([folder / "sub2"])
    with pytest.raises(ImageReadError, match="no images in an empty list of paths"):
        list_images([])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_forbidden_folder(folder: Path) -> None:
    (folder / "sub").chmod(0)
    with pytest.raises(ImageReadError, match=r"sub: the folder cannot be read \(.*\); check its p"):
        list_images([folder])
