"""What fuzzing shares: a command line that is judged, a sound dataset, a sound model."""

from __future__ import annotations

from pathlib import Path

import pytest
from verdict import Command

from diffinst.datasets.synthetic import make_shapes
from diffinst.inference.predictor import DiffusionInst


@pytest.fixture
def command(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Command:
    """Runs where nothing is, so that nothing but the paths it is given can be written."""
    monkeypatch.chdir(tmp_path)
    return Command(request.node.nodeid, monkeypatch)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return DiffusionInst.from_preset("tiny").save_pretrained(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images of 32 x 32 pixels with a disc and a box each, in the split "train"."""
    folder = tmp_path_factory.mktemp("shapes")
    classes = ("disc", "box")
    return make_shapes(folder, train=2, val=0, size=(32, 32), classes=classes, objects=(2, 2))
