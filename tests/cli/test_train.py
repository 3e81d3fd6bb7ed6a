"""Does `diffinst train` start from what it is told to, and say beforehand what it will do?"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from diffinst.cli import main
from diffinst.config import Config
from diffinst.datasets.synthetic import make_shapes
from diffinst.models.network import DiffusionInstNetwork
from diffinst.training.criterion import Criterion
from diffinst.weights import store

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")
Run = Callable[..., tuple[int, str]]
SMALL = ("--augment.short-sides", 48, "--preprocess.short-side", 48)
QUICK = ("--no-pretrained", "--train.iterations", 1, "--train.proposals", 6, *SMALL)
TINY = ("--preset", "tiny", *QUICK)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    return make_shapes(folder, train=2, val=1, size=(48, 64), objects=(1, 2))


@pytest.fixture
def train(data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `diffinst train` on the data in this process: exit code, stderr."""

    def run(*tokens: object) -> tuple[int, str]:
        line = ["diffinst", "train", "--data", data, *tokens]
        monkeypatch.setattr(sys, "argv", [str(token) for token in line])
        code: object = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        assert isinstance(code, int)
        return code, capsys.readouterr().err

    return run


def test_the_plan_is_said_before_training(train: Run, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "[run]"  # brackets are not markup
    code, err = train("--out", out, *TINY, "--train.loggers", "csv")
    assert code == 0
    plan = json.loads((out / "plan.json").read_text())
    assert {"train", "val", "classes", "steps", "batch", "lr", "model"} < plan.keys()
    lines = [line.split(maxsplit=1) for line in err.splitlines()]
    for name, text in plan.items():
        assert [name, text] in lines
    assert plan["train"].startswith("2 images") and plan["time"].startswith("about ")
    assert f"model folder: {out}" in err and f"best on val:  {out / 'best'}" in err
    assert f"next: diffinst eval --data {data} --model {out / 'best'}\n" in err


def test_all_classes_as_one(train: Run, tmp_path: Path) -> None:
    code, err = train("--out", tmp_path / "run", *TINY, "--single-class")
    assert code == 0 and "classes  1: object (2)" in err
    _, config = store.load(tmp_path / "run")
    assert config.model.class_names == ("object",) and config.train.single_class
    assert err.rstrip().endswith(f"--model {tmp_path / 'run' / 'best'} --single-class")


def test_overfitting(train: Run, tmp_path: Path) -> None:
    code, _ = train("--out", tmp_path / "run", *TINY, "--overfit", 1, "--augment.flip", 1)
    assert code == 0
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert plan["train"] == plan["val"] and plan["train"].startswith("1 images")
    _, config = store.load(tmp_path / "run")
    assert config.augment.flip == 0 and config.augment.short_sides == (48,)


def test_a_trial_run(train: Run, tmp_path: Path) -> None:
    code, err = train("--out", tmp_path / "run", *TINY, "--fast-dev-run")
    assert code == 0 and "everything ran: start the real run without --fast-dev-run" in err
    assert "next:" not in err and not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of other classes, sizes and settings than any preset."""
    config = Config.from_preset("tiny").updated(
        model={
            "num_classes": 2,
            "class_names": ["box", "star"],
            "decoder": {"width": 16, "stages": 1},
        },
        sampler={"proposals": 17},
        train={"seed": 5, "lr": 1e-9},
    )
    torch.manual_seed(0)
    network = DiffusionInstNetwork(config.model)
    return store.save(network, config, tmp_path_factory.mktemp("model"))


def test_from_trained_weights(train: Run, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    code, err = train("--from", model, "--out", out, *QUICK)
    assert code == 0 and "lr       1e-09" in err
    network, config = store.load(out)
    # its settings, too, but for the classes and the flags
    assert config.model.class_names == ("disc", "box", "triangle")
    assert (config.model.decoder.width, config.model.decoder.stages) == (16, 1)
    assert (config.sampler.proposals, config.train.seed, config.train.proposals) == (17, 5, 6)
    old = store.load(model)[0]
    for name, value in old.fpn.named_parameters():
        torch.testing.assert_close(network.fpn.get_parameter(name), value, rtol=0, atol=1e-6)
    rows = (n.get_parameter("decoder.stages.0.class_logits.weight") for n in (network, old))
    new, kept = rows
    torch.testing.assert_close(new[1], kept[0], rtol=0, atol=1e-6)  # box


def test_from_trained_weights_with_the_settings_of_a_preset(
    train: Run, model: Path, tmp_path: Path
) -> None:
    code, _ = train("--from", model, "--out", tmp_path / "run", *TINY)
    assert code == 0
    _, config = store.load(tmp_path / "run")
    tiny = Config.from_preset("tiny")
    assert (config.model.decoder.width, config.model.decoder.stages) == (16, 1)
    assert (config.sampler, config.train.seed, config.train.lr) == (
        tiny.sampler,
        tiny.train.seed,
        tiny.train.lr,
    )


def test_from_weights_of_another_architecture(train: Run, model: Path, tmp_path: Path) -> None:
    flags = ("--from", model, "--out", tmp_path / "run", *QUICK)
    code, err = train(*flags, "--model.decoder.width", 32)
    assert code == 1 and f"error: {model} does not fit this architecture" in err
    code, err = train("--from", tmp_path / "gone", "--out", tmp_path / "run", *QUICK)
    assert code == 1 and f"error: no model '{tmp_path / 'gone'}'" in err
    assert not (tmp_path / "run").exists()


def test_two_places_to_start_from(train: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("base: tiny\n")
    code, err = train("--preset", "tiny", "--config", tmp_path / "mine.yaml")
    assert code == 1 and "--preset and --config both say where to start; give one of them" in err


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (
            "train: {itertions: 5}",
            "unknown field 'train.itertions'; did you mean 'train.iterations'",
        ),
        (
            "train: {mask_chunk: 5}",
            "unknown field 'train.mask_chunk'; did you mean 'criterion.mask_",
        ),
        ("trian: {lr: 1}", "unknown field 'trian'; did you mean 'train'?"),
    ],
)
def test_a_misspelt_field_in_a_file(train: Run, tmp_path: Path, text: str, meant: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"base: tiny\n{text}\n")
    code, err = train("--config", path, "--out", tmp_path / "run")
    assert code == 1 and f"error: {path}: {meant}" in err
    assert "Traceback" not in err and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory"),
            "error: out of memory while training: raise",
        ),
        (FloatingPointError("10 steps in a row"), "error: 10 steps in a row"),
    ],
)
def test_what_goes_wrong_in_training_is_one_line(
    train: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Criterion, "forward", fails)
    code, err = train("--out", tmp_path / "run", *TINY)
    assert code == 1 and said in err and "Traceback" not in err
