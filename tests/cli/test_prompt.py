"""Does `diffinst prompt` answer boxes and clicks from a line or a file?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    Image.fromarray(np.full((30, 40, 3), 90, np.uint8)).save(path)
    return path


def test_boxes_of_a_file_and_clicks_of_a_line(
    diffinst: Run, model: Path, image: Path, tmp_path: Path
) -> None:
    boxes, out = tmp_path / "boxes.json", tmp_path / "out"
    boxes.write_text("[[2, 2, 12, 12], [20, 5, 39, 29]]")
    flags = ("--model", model, "--out", out, "--boxes", boxes, "--exclude", "1,1 30,0,34,4")
    code, _, err = diffinst("prompt", image, *flags, "--points", "5,5+6,8 20,20")
    assert code == 0 and "4 prompts" in err
    assert len(json.loads((out / "results.json").read_text())) == 4
    with Image.open(out / "overlay.png") as overlay, Image.open(out / "masks.png") as masks:
        assert overlay.size == masks.size == (40, 30)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), 'nothing is asked for; give --boxes "x0,y0,x1,y1 ..."'),
        (("--points", "5;5"), "--points 5;5: give numbers such as 10,20,60,80"),
        (("--points", "5,500"), "lies outside the image, which is 40 wide and 30 high"),
        (("--boxes", "missing.json"), "--boxes missing.json: cannot be read"),
        (("--boxes", "1,2,3"), "give x0, y0, x1, y1 for each"),
    ],
)
def test_what_is_no_prompt_is_one_line(
    diffinst: Run, model: Path, image: Path, flags: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    code, _, err = diffinst("prompt", image, "--model", model, "--out", tmp_path / "out", *flags)
    assert code != 0 and message in " ".join(err.split())
    assert not (tmp_path / "out").exists()


def test_out_that_is_a_file_is_refused_at_once_and_a_box_may_begin_with_a_minus(
    diffinst: Run, model: Path, image: Path, tmp_path: Path
) -> None:
    kept = image.read_bytes()
    code, _, err = diffinst("prompt", image, "--model", "none", "--points", "5,5", "--out", image)
    assert code != 0 and "a.png: is a file; results go into a folder" in " ".join(err.split())
    assert image.read_bytes() == kept
    flags = ("--model", model, "--out", tmp_path / "out", "--boxes=-5,2,12,12")
    code, _, err = diffinst("prompt", image, *flags)
    assert code == 0 and "1 prompts" in err


def test_a_file_that_holds_no_lists_is_named(
    diffinst: Run, model: Path, image: Path, tmp_path: Path
) -> None:
    for text, message in (("{", "is no JSON"), ('{"boxes": 1}', "give a list of lists")):
        (tmp_path / "b.json").write_text(text)
        code, _, err = diffinst("prompt", image, "--model", model, "--boxes", tmp_path / "b.json")
        assert code != 0 and "b.json" in err and message in " ".join(err.split())
