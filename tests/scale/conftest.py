"""What tests of many images share: a small model, small images, a command line to kill."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffinst.inference.predictor import DiffusionInst
from diffinst.scale.fingerprint import Run, loaded, save
from diffinst.scale.inputs import Entry
from diffinst.scale.messages import Instance, Item, Row
from diffinst.scale.place import place
from diffinst.scale.plan import Plan, write_plan
from diffinst.scale.rows import write_part

FLAGS = ("--proposals", "6", "--max-detections", "2", "--threshold", "0", "--device", "cpu")
Command = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return DiffusionInst.from_preset("tiny").save_pretrained(tmp_path_factory.mktemp("model"))


@pytest.fixture
def write_images() -> Callable[[Path, int], list[Path]]:
    """Writes so many images of 32 x 48 random pixels into a folder."""

    def write(folder: Path, count: int) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / f"{i:03d}.png" for i in range(count)]
        for i, file in enumerate(files):
            pixels = np.random.default_rng(i).integers(0, 256, (32, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(file)
        return files

    return write


@pytest.fixture
def images(write_images: Callable[[Path, int], list[Path]], tmp_path: Path) -> Path:
    """A folder of four images."""
    write_images(tmp_path / "in", 4)
    return tmp_path / "in"


@pytest.fixture
def start(model: Path) -> Command:
    """Starts `diffinst predict IMAGES --out OUT --shards` as a process of its own."""

    def begin(images: Path, out: Path, *flags: object, **env: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "diffinst", "predict", images, "--out", out, "--shards"]
        return subprocess.Popen(
            [*map(str, [*command, "--model", model, *FLAGS, *flags])],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | env,
        )

    return begin


@pytest.fixture
def parts() -> Callable[[Path], dict[str, bytes]]:
    """Reads the files of a run's parts, by name."""
    return lambda out: {file.name: file.read_bytes() for file in (out / "parts").iterdir()}


MASK = "9220003"  # 4 x 6, column by column: 9 off, 2 on, 2 off, 2 on, 2 off, 2 on, 5 off


def row(item: Item, instances: int) -> Row:
    """A row with so many instances, all with pixels 1:3, 2:5; with none the image is broken."""
    if not instances:
        return Row(item.id, item.path, item.bytes, error=f"{item.path}: is no image")
    one = Instance(1, 0.5, (2.0, 1.0, 5.5, 3.0), MASK, {"area": 6.0})
    return Row(item.id, item.path, item.bytes, 4, 6, None, [one] * instances)


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A run over a.png to e.png in shards of 2, with 1, 2, 0 (c.png is broken), 3, 4 instances."""
    out = tmp_path / "finished"
    planned = write_plan(place(out), [Entry(f"{name}.png", 1, 1) for name in "abcde"])
    run = Run(
        weights="w", config="c", device="cpu", precision="fp32", options={}, reading={}, seed=0,
        classes=("cat", "dog"), images=5, shard_size=2, plan=planned.digest,
    )  # fmt: skip
    save(place(out), run)
    plan, counts = Plan(place(out), 2), [[1, 2], [0, 3], [4]]
    for shard, some in enumerate(counts):
        rows = [row(item, count) for item, count in zip(plan.shard(shard), some, strict=True)]
        write_part(place(out), shard, rows, run.fingerprint)
    return out


@pytest.fixture
def fingerprint(finished: Path) -> str:
    return loaded(place(finished)).fingerprint
