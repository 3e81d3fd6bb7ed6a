"""What tests of commands share: a command line, a small model, a few annotated images."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from diffinst.cli import main
from diffinst.datasets.synthetic import make_shapes
from diffinst.inference.predictor import DiffusionInst

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def diffinst(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in this process: exit code, stdout, stderr."""

    def run(*tokens: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["diffinst", *map(str, tokens)])
        code: object = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        assert isinstance(code, int)
        return code, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return DiffusionInst.from_preset("tiny").save_pretrained(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    return make_shapes(folder, train=0, val=3, size=(48, 64), objects=(2, 3))
