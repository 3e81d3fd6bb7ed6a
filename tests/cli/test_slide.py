"""Does `diffinst predict --tiles` take its flags, go on, and say what is wrong in one line?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("zarr")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    path = tmp_path / "slide.tif"
    noise = np.random.default_rng(0).integers(0, 256, (100, 150), np.uint8)
    tifffile.imwrite(path, noise, tile=(64, 64), compression="zlib")
    return path


def test_a_slide_is_predicted_and_a_second_call_goes_on(
    diffinst: Run, model: Path, slide: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ["predict", slide, "--tiles", "--model", model, "--out", out, "--tile", 96]
    command += ["--overlap", 32, "--label-image", "tif", "--skip", "none", "--steps", 2]
    code, _, said = diffinst(*command)
    assert code == 0, said
    assert "0 empty tiles" in said
    assert {path.name for path in out.iterdir()} == {
        "instances.geojson", "instances.jsonl", "labels.tif", "overview.png", "parts", "run.json"
    }  # fmt: skip
    code, _, said = diffinst(*command)
    assert code == 0 and "2 rows of tiles were there already" in said
    code, _, said = diffinst(*command, "--seed", 1)
    assert code == 1 and "options was" in said


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tiles", "--tile", 100], "tile is 100 and overlap 128"),
        (["--tile", 512], "--tile is for images that are predicted in tiles; add --tiles"),
        (["--tiles", "--object-size", 20], "preprocess.object_size"),
        (["--tiles", "--level", 4], "level is 4"),
        (["second.tif", "--tiles"], "--tiles is for one image at a time, here are 2"),
    ],
)
def test_wrong_flags_are_one_line(
    diffinst: Run, model: Path, slide: Path, tmp_path: Path, flags: list[object], message: str
) -> None:
    code, _, said = diffinst("predict", slide, *flags, "--model", model, "--out", tmp_path / "o")
    assert code == 1
    assert message in said and "Traceback" not in said


def test_a_missing_image_is_named(diffinst: Run, model: Path, tmp_path: Path) -> None:
    code, _, said = diffinst("predict", tmp_path / "no.svs", "--tiles", "--model", model)
    assert code == 1 and "no.svs" in said
