"""Does `diffinst predict --track` follow a video and say where everything is?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Run = Callable[..., tuple[int, str, str]]


def one_line(text: str) -> str:
    return " ".join(text.replace("│", " ").split())


@pytest.fixture
def movie(tmp_path: Path) -> Path:
    folder = tmp_path / "movie"
    folder.mkdir()
    for k, size in enumerate([(32, 24), (32, 24), (40, 24)]):
        pixels = np.random.default_rng(k).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{k}.png")
    return folder


def test_a_folder_of_frames_is_tracked(
    diffinst: Run, model: Path, movie: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    flags = ("--model", model, "--out", out, "--proposals", 8, "--threshold", 0)
    code, text, err = diffinst("predict", movie, "--track", *flags, "--layout", "ctc")
    assert code == 0 and text == ""
    assert "objects on 3 frames" in err and str(out / "tracks.txt") in err
    assert "frame 2: 24x32 (height x width) before, 24x40" in one_line(err)
    assert {"overlay.mp4", "tracks.txt", "results.json", "index.json", "01_RES"} == {
        p.name for p in out.iterdir()
    }


def test_what_cannot_be_tracked_is_one_line(
    diffinst: Run, model: Path, movie: Path, tmp_path: Path
) -> None:
    flags = ("--model", model, "--out", tmp_path / "out")
    (tmp_path / "broken.mp4").write_bytes(b"no video" * 50)
    (tmp_path / "none").mkdir()
    for tokens, said in (
        ((tmp_path / "broken.mp4", "--track"), "cannot be read as a video"),
        ((tmp_path / "none", "--track"), "no frames in it"),
        ((movie, "--track", "--kind", "ddim"), "kind ddim"),
        ((movie, "--track", "--page", 1, "--project", "max"), "page 1 chooses one page"),
        ((movie, "--layout", "ctc"), "--layout ctc: is for videos; add --track"),
    ):
        code, _, err = diffinst("predict", *tokens, *flags)
        assert code == 1 and said in one_line(err)
        assert not (tmp_path / "out" / "results.json").exists()
