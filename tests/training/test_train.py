"""Does the function do what the command does, and hand back what it has made?"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from diffinst.cli import main
from diffinst.config import Config, ConfigError, ConfigParts
from diffinst.datasets.synthetic import make_shapes
from diffinst.models.network import DiffusionInstNetwork
from diffinst.training.fit import fit
from diffinst.training.train import Trained, train
from diffinst.weights import store
from diffinst.weights.card import Card
from diffinst.weights.store import CheckpointError
from diffinst.weights.transfer import Origin

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")
Settings = Callable[..., Config]
SMALL: ConfigParts = {
    "augment": {"short_sides": [48]},
    "preprocess": {"short_side": 48},
    "sampler": {"proposals": 8},
    "train": {
        "iterations": 2,
        "eval_every": 1,
        "proposals": 8,
        "warmup": 0,
        "loggers": ["csv"],
        "lr": 1e-3,
    },
}
FLAGS = (
    *("--augment.short-sides", 48, "--preprocess.short-side", 48, "--sampler.proposals", 8),
    *("--train.iterations", 2, "--train.eval-every", 1, "--train.proposals", 8),
    *("--train.warmup", 0, "--train.loggers", "csv", "--train.lr", 1e-3),
)


@pytest.fixture(scope="module")
def done(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    out = tmp_path_factory.mktemp("train") / "run"
    return train(shapes, preset="tiny", out=out, pretrained=False, progress=False, **SMALL)


def files(out: Path) -> list[str]:
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())


def test_cards_say_what_the_models_were_trained_on_and_how_good_they_are(done: Trained) -> None:
    assert done.best is not None
    for folder in (done.folder, done.best):
        card = Card.read(folder)
        assert card.data.startswith("shapes") and card.data.endswith("images")
        assert card.metrics["mask/AP"] == pytest.approx(done.metrics["mask/AP"], abs=1e-4)
    assert done.model.card == card


def test_the_command_leaves_the_same_files(
    done: Trained, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    line = ["diffinst", "train", "--data", shapes, "--preset", "tiny", "--out", out]
    line += ["--no-pretrained", *FLAGS]
    monkeypatch.setattr(sys, "argv", [str(token) for token in line])
    code: object = None
    try:
        main()
    except SystemExit as stop:
        code = stop.code
    assert not code
    assert files(out) == files(done.folder)
    for name in ("run.json", "config.json", "metrics.json", "best/metrics.json"):
        assert json.loads((out / name).read_text()) == json.loads((done.folder / name).read_text())
    for name in ("model.safetensors", "best/model.safetensors"):
        one, other = load_file(out / name), load_file(done.folder / name)
        assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_what_comes_back_is_the_best_model_and_its_scores(done: Trained, shapes: Path) -> None:
    assert done.best == done.folder / "best"
    weights = load_file(done.best / store.WEIGHTS_FILE)
    state = done.model.network.state_dict()
    assert all(torch.equal(state[name], value) for name, value in weights.items())
    scores = json.loads((done.best / "metrics.json").read_text())
    assert done.metrics == {k: v for k, v in scores.items() if k != "iteration"}
    assert {"mask/AP", "box/AP"} < done.metrics.keys()
    assert not done.model.network.training
    found = done.model.predict(next(path for path in (shapes / "val").iterdir()))
    assert found.image_size == (48, 64)


def test_without_val_the_last_model_comes_back(tmp_path: Path) -> None:
    data = make_shapes(tmp_path / "data", train=2, val=0, size=(48, 64))
    (data / "annotations" / "instances_val.json").unlink()
    out = tmp_path / "run"
    one = train(data, preset="tiny", out=out, pretrained=False, progress=False, **SMALL)
    assert (one.metrics, one.best, one.folder) == ({}, None, out)
    weights, state = load_file(out / store.WEIGHTS_FILE), one.model.network.state_dict()
    assert all(torch.equal(state[name], value) for name, value in weights.items())


def test_a_trial_run_gives_a_model_and_no_folder(shapes: Path, tmp_path: Path) -> None:
    one = train(
        shapes, preset="tiny", out=tmp_path / "run", pretrained=False, progress=False,
        fast_dev_run=True, **SMALL,
    )  # fmt: skip
    assert not one.folder.exists() and one.best is None and "mask/AP" in one.metrics
    assert one.model.class_names == ("disc", "box", "triangle")


def test_a_run_goes_on_with_its_own_settings(done: Trained, shapes: Path) -> None:
    again = train(shapes, out=done.folder, resume=True, progress=False)
    assert again.folder == done.folder and again.metrics == done.metrics
    with pytest.raises(ConfigError, match=r"train\.lr was 0\.001, now 0\.5"):
        train(shapes, out=done.folder, resume=True, progress=False, train={"lr": 0.5})
    with pytest.raises(ConfigError, match=r"started with other settings.*backbone\.name was "):
        train(shapes, preset="nano", out=done.folder, resume=True, progress=False)


def test_the_same_command_goes_on(done: Trained, shapes: Path) -> None:
    given = {"preset": "tiny", "pretrained": False, "progress": False, **SMALL}
    again = train(shapes, out=done.folder, resume=True, **given)  # type: ignore[arg-type]
    assert again.metrics == done.metrics


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"preset": "tiny", "config": "a.yaml"}, "--preset and --config both say where to start"),
        ({"preset": "tny"}, "no preset 'tny' .*; there are .*tiny"),
        ({"preset": "tiny", "train": {"itertions": 5}}, "did you mean 'train.iterations'"),
        ({"preset": "tiny", "trian": {"lr": 1}}, "unknown field 'trian'; did you mean 'train'"),
        ({"preset": "tiny", "overfit": -1}, "--overfit -1: give a number of images"),
        ({"origin": "runs/gone"}, "no model|neither a folder"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(
    shapes: Path, tmp_path: Path, given: dict[str, object], said: str
) -> None:
    with pytest.raises((ValueError, CheckpointError), match=said):
        train(shapes, out=tmp_path / "run", pretrained=False, progress=False, **given)  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


@pytest.fixture
def renamed(tmp_path: Path) -> Path:
    """Data whose classes are ring, box and disc: one new, one as before, one in another place."""
    data = make_shapes(tmp_path / "data", train=2, val=1, size=(48, 64), objects=(1, 2))
    for file in (data / "annotations").iterdir():
        content = json.loads(file.read_text())
        names = {"disc": "ring", "box": "box", "triangle": "disc"}
        for category in content["categories"]:
            category["name"] = names[category["name"]]
        file.write_text(json.dumps(content))
    return data


def class_layers(network: DiffusionInstNetwork) -> dict[str, Tensor]:
    return {n: v for n, v in network.state_dict().items() if "class_logits" in n}


def test_a_run_starts_from_weights_of_other_classes(
    renamed: Path, quick: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = Config.from_preset("tiny").updated(
        model={"num_classes": 3, "class_names": ["disc", "box", "triangle"]}
    )
    old = DiffusionInstNetwork(config.model)
    folder, out = store.save(old, config, tmp_path / "old"), tmp_path / "out"
    chosen = quick(iterations=1, lr=1e-12)  # nothing moves
    with caplog.at_level(logging.INFO, logger="diffinst"):
        fit(renamed, chosen, out, origin=Origin.read(folder), progress=False)
    assert "class layers kept for box, disc; re-initialised for ring" in caplog.text
    assert "random weights" not in caplog.text
    network, saved = store.load(out)
    assert saved.model.class_names == ("ring", "box", "disc")
    weights = {n: p for n, p in old.named_parameters() if "class_logits" not in n}
    found = {n: p for n, p in network.named_parameters() if "class_logits" not in n}
    torch.testing.assert_close(found, weights, rtol=0, atol=1e-9)
    for name, rows in class_layers(network).items():
        torch.testing.assert_close(rows[[1, 2]], class_layers(old)[name][[1, 0]], rtol=0, atol=1e-9)


def test_a_run_starts_from_a_detector_of_another_library(
    shapes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    model = resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d)
    file, out = tmp_path / "maskrcnn.pth", tmp_path / "run"
    state = {f"backbone.{key}": value for key, value in model.state_dict().items()}
    torch.save(state, file)
    with pytest.raises(CheckpointError, match="resnet18, which does not fit resnet10t; use --m"):
        train(shapes, preset="tiny", origin=file, out=out, progress=False, **SMALL)
    assert not out.exists()
    parts: ConfigParts = {**SMALL, "model": {"backbone": {"name": "resnet18"}}}
    done = train(shapes, preset="tiny", origin=file, out=out, progress=False, **parts)
    assert "gives the backbone (100 tensors); new are pyramid (256 wide there, 32" in caplog.text
    stem = done.model.network.state_dict()["backbone.body.conv1.weight"]
    torch.testing.assert_close(stem, state["backbone.body.conv1.weight"], rtol=0, atol=0.01)


def test_click_sizes_are_those_of_the_new_data(done: Trained, shapes: Path, tmp_path: Path) -> None:
    measured = done.model.config.prompts.sides
    assert measured is not None and measured == tuple(sorted(measured))
    network, config = store.load(done.folder)
    store.save(network, config.updated(prompts={"sides": [1.0, 2.0]}), tmp_path / "other")
    again = train(shapes, origin=tmp_path / "other", out=tmp_path / "b", progress=False, **SMALL)
    assert again.model.config.prompts.sides == measured
