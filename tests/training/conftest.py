"""What tests of training share: a few small images, and runs over them of seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from diffinst.config import Config
from diffinst.datasets.synthetic import make_shapes
from diffinst.training.fit import fit

Settings = Callable[..., Config]
Runner = Callable[..., Path]


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images to train on and two to evaluate on, with one to three objects each."""
    folder = tmp_path_factory.mktemp("shapes")
    return make_shapes(folder, train=3, val=2, size=(48, 64), objects=(1, 3))


@pytest.fixture(scope="session")
def quick() -> Settings:
    """The configuration of a small run with these fields of `train`."""

    def config(**train: object) -> Config:
        small = {
            "iterations": 2,
            "log_every": 1,
            "warmup": 0,
            "milestones": [],
            "proposals": 8,
            "loggers": ["csv"],
        }
        return Config.from_preset("tiny").updated(
            augment={"short_sides": [48]},
            preprocess={"short_side": 48},
            sampler={"proposals": 8},
            train={**small, **train},
        )

    return config


@pytest.fixture(scope="session")
def trained(shapes: Path) -> Runner:
    """Trains on the small images: `trained(config, out)`, with the other arguments of `fit`."""

    def run(config: Config, out: Path, **more: object) -> Path:
        done = fit(shapes, config, out, pretrained=False, progress=False, **more)  # type: ignore[arg-type]
        return done.folder

    return run
