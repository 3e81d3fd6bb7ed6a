"""Do the README's own lines run? Python as written, commands on a generated folder."""

from __future__ import annotations

import contextlib
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffinst.cli import main
from diffinst.data.synthetic import make_shapes

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the README names."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("tissue.png", "a.png", "b.jpg"):
        Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(tmp_path / name)
    return tmp_path


def test_python_runs_as_written(here: Path) -> None:
    (code,) = blocks("python")
    on_cpu = code.replace('result.to("cuda")', 'result.to("cpu")')
    names: dict[str, object] = {}
    exec(compile(on_cpu.replace("threshold=0.5", "threshold=0.0"), "README.md", "exec"), names)
    assert (here / "out.png").is_file()
    assert len(names["results"]) == 2  # type: ignore[arg-type]


def test_the_path_of_a_newcomer_runs(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_shapes(here / "DATA", train=2, val=1)
    (here / "my_pictures").mkdir()
    (here / "a.png").rename(here / "my_pictures" / "a.png")
    (path,) = [b for b in blocks("sh") if "--out runs/mine" in b]
    for line in path.strip().splitlines():
        arguments = shlex.split(line)[1:]
        if arguments[0] == "train":
            arguments += ["--no-pretrained", "--train.workers", "0", "--train.proposals", "8"]
            arguments[arguments.index("7000")] = "2"
        monkeypatch.setattr(sys, "argv", ["diffinst", *arguments])
        with contextlib.suppress(SystemExit):  # the files below tell whether it worked
            main()
    assert (here / "runs" / "mine" / "model.safetensors").is_file()
    assert (here / "runs" / "predict" / "results.json").is_file()
