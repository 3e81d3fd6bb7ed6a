"""A clean dataset, copies of it to plant defects in, and whether training gets through them."""

import contextlib
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from diffinst.config import Config
from diffinst.datasets.layouts import find_splits
from diffinst.datasets.load import check_trainable, load_split
from diffinst.datasets.synthetic import make_shapes
from diffinst.training.loader import load_augmented

TINY = Config.from_preset("tiny")


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6 images to train on, 2 to score on; 15 discs and 17 boxes in "train"."""
    folder = tmp_path_factory.mktemp("clean")
    classes = ("disc", "box")
    return make_shapes(folder, train=6, val=2, classes=classes, seed=17, objects=(4, 6))


class Data:
    """A copy of the clean dataset to plant defects in: the json of both splits, and the files."""

    def __init__(self, clean: Path, root: Path) -> None:
        self.root = Path(shutil.copytree(clean, root, dirs_exist_ok=True))
        self.train, self.val = (
            json.loads(self.file(split).read_text(encoding="utf-8")) for split in ("train", "val")
        )

    def file(self, split: str) -> Path:
        return self.root / "annotations" / f"instances_{split}.json"

    def image(self, index: int, split: str = "train") -> Path:
        return self.root / split / f"{index:06d}.png"

    def save(self) -> None:
        for split, content in (("train", self.train), ("val", self.val)):
            if content is not None:
                self.file(split).write_text(json.dumps(content), encoding="utf-8")

    def polygon(self, index: int) -> list[float]:
        """Make an annotation a square of 20 pixels in a corner, and return its polygon."""
        square = [70.0, 60.0, 90.0, 60.0, 90.0, 80.0, 70.0, 80.0]
        self.train["annotations"][index].update(
            segmentation=[square], bbox=[70, 60, 20, 20], area=400
        )
        return square


@pytest.fixture
def data(clean: Path, tmp_path: Path) -> Data:
    """A copy of its own."""
    return Data(clean, tmp_path / "data")


@pytest.fixture(scope="session")
def trains() -> Callable[[Path], bool]:
    """Whether training gets through each image once, and val can be scored."""
    return gets_through


def gets_through(root: Path) -> bool:
    with contextlib.suppress(ValueError, OSError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train = load_split(root, "train")
        check_trainable(train)
        names = [name for name in find_splits(root) if name != "train"]
        if (root / "annotations" / "instances_val.json").exists() and "val" not in names:
            names.append("val")  # annotations without their folder
        splits = [train, *(load_split(root, name) for name in names)]
        for split in splits:
            for record in split.records:
                load_augmented(record, TINY, np.random.default_rng(0))
        return all(set(split.classes) == set(train.classes) for split in splits)
    return False


@pytest.fixture(scope="session")
def state() -> Callable[[Path], dict[str, tuple[bytes, int]]]:
    """Content and time of change of every file."""
    return state_of


def state_of(root: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }
