"""Does every code block of the docs run? What can't be run is read, and its reason stands here.

Python runs page by page as it stands, with the shipped weights, on a small image that is made.
Flags of all commands are checked in test_readme.py; those that run in seconds are run here.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from diffinst import Config, DiffusionInst
from diffinst.cli import main
from diffinst.datasets.synthetic import make_shapes

ROOT = Path(__file__).resolve().parents[1]
CARD = ROOT / "src/diffinst/weights/shipped/nano-nuclei/README.md"
PAGES = {page.name: page for page in sorted((ROOT / "docs").glob("*.md"))} | {"card": CARD}
BLOCK = re.compile(r"^```([a-z]*)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)

# Why a Python block is only read: a part of the block, the reason.
ONLY_READ = {
    "push_to_hub": "needs an account on the hub",
    "movie.mp4": "needs a video",
    "slide.svs": "needs a slide and openslide",
    "predict_dataset": "starts processes of its own",
    "runs/many/parts": "reads what a large run wrote",
}
# Commands that run: the line as it stands. All others train for long, fetch, or need files of
# their own, and are run by the tests of each command in tests/cli.
RUN = {
    "prompts.md": ["diffinst prompt a.png"],
    "scientific-images.md": ["diffinst predict stack.tif --page", "diffinst predict cells.ome.tif"],
    "uncertainty.md": ["diffinst predict FOLDER"],
    "other-tools.md": ["diffinst predict my_images/"],
}


def blocks(page: str, language: str) -> list[str]:
    return [
        code for kind, code in BLOCK.findall(PAGES[page].read_text("utf-8")) if kind == language
    ]


def reason(code: str) -> str | None:
    return next((why for part, why in ONLY_READ.items() if part in code), None)


LONG = {"other-tools.md"}  # evaluates first


def with_python() -> list[object]:
    """The pages with Python, the long ones marked."""
    return [
        pytest.param(page, marks=pytest.mark.slow) if page in LONG else page
        for page in PAGES
        if blocks(page, "python")
    ]


def nuclei(size: tuple[int, int]) -> Image.Image:
    """Grey discs on black, which the shipped weights find."""
    image = Image.new("RGB", size)
    draw = ImageDraw.Draw(image)
    for x in range(20, size[0] - 20, 40):
        for y in range(20, size[1] - 20, 40):
            draw.ellipse((x - 9, y - 8, x + 9, y + 8), fill=(150, 150, 150))
    return image


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the pages name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DIFFINST_CACHE", str(tmp_path / "cache"))
    for name in ("a.png", "tissue.png", "image.png", "my_images/a.png", "FOLDER/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        nuclei((160, 120)).save(tmp_path / name)
    return tmp_path


def stacks(folder: Path) -> None:
    """The files of scientific-images.md."""
    tifffile = pytest.importorskip("tifffile")
    grey = np.asarray(nuclei((96, 96)).convert("L"), np.uint16) * 16
    tifffile.imwrite(folder / "stack.tif", np.stack([grey] * 13), metadata={"axes": "ZYX"})
    channels = np.broadcast_to(grey, (4, 3, 96, 96))
    tifffile.imwrite(folder / "cells.ome.tif", channels, ome=True, metadata={"axes": "CZYX"})


def evaluated(folder: Path, run: Callable[[str], None]) -> None:
    """The files of other-tools.md: a data set, its evaluation, a prediction, a trained model."""
    data = make_shapes(folder / "DATA", train=1, val=2, size=(96, 96))
    for path in (data / "annotations").iterdir():
        content = json.loads(path.read_text())
        content["categories"] = [{"id": 1, "name": "nucleus"}]
        for annotation in content["annotations"]:
            annotation["category_id"] = 1
        path.write_text(json.dumps(content))
    run("diffinst eval --data DATA --model nano-nuclei --proposals 20 --out runs/eval")
    run("diffinst predict my_images/ --out runs/a")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def command(line: str) -> None:
        monkeypatch.setattr(sys, "argv", shlex.split(line, comments=True))
        code: object = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        assert not code, line

    return command


@pytest.mark.parametrize("page", with_python())
def test_python_runs_as_it_stands(
    page: str, here: Path, nano: DiffusionInst, run: Callable[[str], None]
) -> None:
    if page == "scientific-images.md":
        stacks(here)
    if page == "other-tools.md":
        pytest.importorskip("supervision")
        evaluated(here, run)
    names: dict[str, object] = {"model": nano, "array": np.asarray(nuclei((96, 96)))}
    names["image"] = nano.encode("a.png")
    names["result"] = nano.predict("a.png")
    count = 0
    for code in blocks(page, "python"):
        tree = compile(code, page, "exec")  # a block that is only read has to be Python, too
        if reason(code) is None:
            exec(tree, names)
            count += 1
    if count == 0:
        pytest.skip("; ".join(filter(None, map(reason, blocks(page, "python")))))


OF_ONE = {"network", "config", "precision", "card"}  # attributes of a model, not of its class


@pytest.mark.parametrize("page", with_python())
def test_names_of_ours_in_python_are_there(page: str) -> None:
    for code in blocks(page, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("diffinst"):
                module = __import__(node.module or "", fromlist=["x"])
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{node.module}.{alias.name}"
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "model":
                assert hasattr(DiffusionInst, node.attr) or node.attr in OF_ONE, node.attr


def lines(page: str) -> list[str]:
    text = "\n".join(blocks(page, "sh")).replace("\\\n", " ")
    return [line for line in text.splitlines() if line.startswith("diffinst ")]


@pytest.mark.parametrize("page", [page for page in RUN if page in PAGES])
def test_quick_commands_run_as_they_stand(
    page: str, here: Path, run: Callable[[str], None]
) -> None:
    if page == "scientific-images.md":
        stacks(here)
    if page == "prompts.md":
        nuclei((720, 460)).save(here / "a.png")
    for start in RUN[page]:
        chosen = [line for line in lines(page) if line.startswith(start)]
        assert chosen, f"{page} has no line that begins with {start}"
        for line in chosen:
            run(line)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "yaml")])
def test_yaml_is_a_configuration(page: str, tmp_path: Path) -> None:
    for number, code in enumerate(blocks(page, "yaml")):
        path = tmp_path / f"{number}.yaml"
        path.write_text(code)
        Config.from_file(path)


def test_every_block_says_what_it_is() -> None:
    kinds = {kind for page in PAGES.values() for kind, _ in BLOCK.findall(page.read_text("utf-8"))}
    assert kinds <= {"python", "sh", "yaml", "json", "text", ""}
    for page in PAGES:
        for code in blocks(page, ""):
            assert "import diffinst" not in code, f"{page}: call this block python"
