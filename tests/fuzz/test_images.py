"""Is an image file that is none refused by name, and are the others segmented all the same?"""

from __future__ import annotations

import io
import json
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
from mutate import Case, cases, mutated_bytes
from PIL import Image
from verdict import Command, readable

from diffinst.config import Reading
from diffinst.io import images

FORMATS = ("PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP", "PPM")
MODES = {"PNG": ("RGB", "RGBA", "L", "P", "1", "I;16"), "TIFF": ("RGB", "L", "I;16", "F", "CMYK")}
TIFFFILE = "tifffile logs what it passes over in damaged files"
LARGEST = 1_000_000  # pixels, so that a turned bit of a header asks for no gigabytes


@pytest.fixture(autouse=True)
def _small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", LARGEST)


def sound(rng: random.Random) -> tuple[str, bytes]:
    """An image of few pixels in some format and mode, of one or two pages, and its suffix."""
    form = rng.choice(FORMATS)
    mode = rng.choice(MODES.get(form, ("RGB", "L")))
    size = (rng.randint(1, 40), rng.randint(1, 40))
    noise = Image.frombytes("L", size, rng.randbytes(size[0] * size[1]))
    pages = [noise if mode == "L" else _as(noise, mode)] * rng.choice((1, 1, 2))
    more = {"save_all": True, "append_images": pages[1:]} if form in ("TIFF", "GIF") else {}
    if form in ("PNG", "JPEG") and rng.random() < 0.3:
        exif = Image.Exif()
        exif[0x0112] = rng.choice((0, 3, 6, 9, 65535))
        more["exif"] = exif
    if form == "TIFF" and mode != "F":
        more["compression"] = rng.choice((None, "tiff_lzw", "tiff_adobe_deflate"))
    stream = io.BytesIO()
    pages[0].save(stream, form, **more)
    return form.lower(), stream.getvalue()


def _as(noise: Image.Image, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.asarray(noise).astype(np.uint16) * 257)
    return noise.convert(mode)


def broken(rng: random.Random) -> tuple[str, bytes]:
    suffix, content = sound(rng)
    for _ in range(rng.randint(1, 3)):
        content = mutated_bytes(content, rng)
    if rng.random() < 0.1:
        suffix = rng.choice(FORMATS).lower()
    return suffix, content


@pytest.mark.parametrize("case", cases("file", 150, 3000))
def test_reading(case: Case, tmp_path: Path, command: Command) -> None:
    rng = case.rng()
    suffix, content = broken(rng)
    path = tmp_path / f"fuzz.{suffix}"
    path.write_bytes(content)
    reading = rng.choice((*[None] * 8, Reading(page=0), Reading(page=1), Reading(project="max")))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            pixels, notes = images.read(path, reading)
        except images.ImageReadError as error:
            readable([str(error)])
            if str(path) not in str(error):
                raise AssertionError(f"{error}{command.alone()}") from error
        except Exception as error:
            raise AssertionError(f"{type(error).__name__}: {error}{command.alone()}") from error
        else:
            assert pixels.dtype == np.uint8 and pixels.shape[2] == 3 and pixels.size > 0
            assert pixels.size <= 3 * LARGEST
            readable(notes)
    assert not warned, f"a library warns: {warned[0].message}{command.alone()}"


@pytest.mark.parametrize(
    "case", cases("folder", 6, 42, dict.fromkeys((15, 17, 22, 29, 37), TIFFFILE))
)
def test_predict_names_what_it_cannot_read(
    case: Case, command: Command, model: Path, tmp_path: Path
) -> None:
    rng = case.rng()
    folder, out = tmp_path / "images", tmp_path / "out"
    folder.mkdir()
    for i in range(4):
        suffix, content = broken(rng)
        (folder / f"fuzz{i}.{suffix}").write_bytes(content)
    Image.new("RGB", (24, 24), "gray").save(folder / "sound.png")
    ended = command("predict", folder, "--model", model, "--out", out, reports=True)
    command.whole(out)
    index = json.loads((out / "index.json").read_text("utf-8"))
    done = {Path(image["file_name"]).name for image in index["images"]}
    failed = {path.name for path in folder.iterdir()} - done
    assert "sound.png" in done, command.alone((), ended)
    assert {path.stem for path in (out / "masks").iterdir()} == {Path(n).stem for n in done}
    assert {path.stem for path in (out / "overlays").iterdir()} == {Path(n).stem for n in done}
    assert ended.code == bool(failed), command.alone((), ended)
    start = [i for i, line in enumerate(ended.err) if line.endswith("images could not be read:")]
    assert len(start) == bool(failed), command.alone((), ended)
    named = ended.err[start[0] + 1 :] if failed else ()
    assert len(named) == len(failed), f"not a line for each{command.alone((), ended)}"
    for name in failed:
        assert any(str(folder / name) in line for line in named), command.alone((), ended)
