"""Do the README's own lines run? Python as written, commands on a generated folder."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffinst.cli import app, main
from diffinst.datasets.synthetic import make_shapes
from diffinst.io.video import write_video

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the README names."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("tissue.png", "a.png", "b.jpg"):
        Image.fromarray(rng.integers(0, 255, (96, 128, 3), dtype=np.uint8)).save(tmp_path / name)
    return tmp_path


def test_python_runs_as_written(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFINST_CACHE", str(here / "cache"))
    (here / "my_images").mkdir()
    with write_video(here / "movie.mp4") as movie:
        for level in (40, 80):
            movie.add(Image.new("RGB", (128, 96), (level, level, level)))
    shutil.copy(here / "a.png", here / "my_images")
    names: dict[str, object] = {}
    first, second, third = blocks("python")
    for code in (first, second, third):
        exec(compile(code, "README.md", "exec"), names)
    assert (here / "out.png").is_file()
    assert len(names["results"]) == 2  # type: ignore[arg-type]


def roboflow(root: Path) -> Path:
    """A generated data set as Roboflow exports it: a json beside its images, a root category."""
    made = make_shapes(root.parent / "made", train=3, val=2, objects=(2, 4))
    for split, folder in {"train": "train", "val": "valid"}.items():
        (root / folder).mkdir(parents=True)
        content = json.loads((made / "annotations" / f"instances_{split}.json").read_text())
        for category in content["categories"]:
            category["supercategory"] = "shapes"
        content["categories"].insert(0, {"id": 0, "name": "shapes", "supercategory": "none"})
        (root / folder / "_annotations.coco.json").write_text(json.dumps(content))
        for image in (made / split).iterdir():
            image.rename(root / folder / image.name)
    shutil.rmtree(made)
    return root


def test_the_path_of_a_newcomer_runs(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    roboflow(here / "DATA")
    (here / "my_images").mkdir()
    (here / "a.png").rename(here / "my_images" / "a.png")
    (path,) = [b for b in blocks("sh") if "--out runs/mine" in b]
    names = []
    for line in path.strip().splitlines():
        arguments = shlex.split(line)[1:]
        names.append(arguments[0])
        if arguments[0] == "train":
            arguments += ["--no-pretrained", "--train.workers", "0", "--train.proposals", "8"]
            arguments[arguments.index("7000")] = "2"
            arguments[arguments.index("1000")] = "1"
        monkeypatch.setattr(sys, "argv", ["diffinst", *arguments])
        code: object = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        assert not code, capsys.readouterr().err
    assert names == ["doctor", "train", "eval", "predict"]
    assert (here / "runs" / "doctor" / "contact_sheet.png").is_file()
    assert (here / "runs" / "mine" / "best" / "model.safetensors").is_file()
    assert (here / "runs" / "mine" / "eval" / "metrics.json").is_file()
    assert (here / "runs" / "predict" / "results.json").is_file()


PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "recipes" / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_command_on_a_page_is_one(page: Path) -> None:
    text = page.read_text().replace("\\\n", " ")
    commands = [
        line.split("diffinst", 1)[1].removeprefix(".cli")
        for block in re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
        for line in block.splitlines()
        if re.match(r"(.* )?(-m )?diffinst(\.cli)? ", line) and "..." not in line
    ]
    for command in commands:
        tokens = shlex.split(command, comments=True)
        app.parse_args(tokens, print_error=False, exit_on_error=False)  # raises on a wrong flag
