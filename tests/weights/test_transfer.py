"""Does a run on other classes start from everything that still fits?"""

from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor

from diffinst.config import Config
from diffinst.datasets.synthetic import make_shapes
from diffinst.models.network import DiffusionInstNetwork
from diffinst.training.fit import fit
from diffinst.weights import store
from diffinst.weights.store import CheckpointError
from diffinst.weights.transfer import Origin

OLD = ("disc", "box", "triangle")


def fresh(names: Sequence[str], seed: int = 1, **model: object) -> DiffusionInstNetwork:
    """A tiny network for these classes."""
    torch.manual_seed(seed)
    classes = {"num_classes": len(names), "class_names": list(names)}
    return DiffusionInstNetwork(
        Config.from_preset("tiny").updated(model={**classes, **model}).model
    )


@pytest.fixture(scope="module")
def old() -> DiffusionInstNetwork:
    return fresh(OLD, seed=0)


@pytest.fixture(scope="module")
def folder(old: DiffusionInstNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It as a model folder."""
    path = tmp_path_factory.mktemp("old") / "model"
    return store.save(old, Config.from_preset("tiny"), path)


def class_layers(network: DiffusionInstNetwork) -> dict[str, Tensor]:
    state = network.state_dict()
    found = {name: value.clone() for name, value in state.items() if "class_logits" in name}
    assert len(found) == 2 * len(network.decoder.stages)  # weights and biases
    return found


def others(network: DiffusionInstNetwork) -> dict[str, Tensor]:
    return {n: v for n, v in network.state_dict().items() if "class_logits" not in n}


def test_shared_classes_keep_their_rows(old: DiffusionInstNetwork, folder: Path) -> None:
    network = fresh(["ring", "triangle", "star", "disc"])
    before, given = class_layers(network), class_layers(old)
    said = Origin.read(folder).fill(network, ["ring", "triangle", "star", "disc"])
    assert said == (
        f"weights from {folder}; class layers kept for triangle, disc; "
        "re-initialised for ring, star"
    )
    torch.testing.assert_close(others(network), others(old), rtol=0, atol=0)
    for name, rows in class_layers(network).items():
        assert torch.equal(rows[[1, 3]], given[name][[2, 0]])
        assert torch.equal(rows[[0, 2]], before[name][[0, 2]])


def test_the_same_classes_take_all_weights(old: DiffusionInstNetwork, folder: Path) -> None:
    network = fresh(OLD)
    said = Origin.read(folder).fill(network, OLD)
    assert said == f"all weights from {folder}, whose classes are the same or more"
    torch.testing.assert_close(dict(network.state_dict()), dict(old.state_dict()), rtol=0, atol=0)


def test_fewer_classes_leave_rows_away(old: DiffusionInstNetwork, folder: Path) -> None:
    network = fresh(["triangle"])
    assert "the same or more" in Origin.read(folder).fill(network, ["triangle"])
    for name, rows in class_layers(network).items():
        assert torch.equal(rows, class_layers(old)[name][2:])


def test_other_classes_altogether(old: DiffusionInstNetwork, folder: Path) -> None:
    names = [f"kind {i}" for i in range(7)]
    network = fresh(names)
    before = class_layers(network)
    said = Origin.read(folder).fill(network, names)
    assert said == (
        f"weights from {folder}; class layers re-initialised for "
        "kind 0, kind 1, kind 2, kind 3, kind 4, ..."
    )
    torch.testing.assert_close(class_layers(network), before, rtol=0, atol=0)
    torch.testing.assert_close(others(network), others(old), rtol=0, atol=0)


@pytest.mark.parametrize("names", [OLD, ("ring",)])
@pytest.mark.parametrize("decoder", [{"width": 16}, {"stages": 3}])
def test_another_architecture_is_refused(
    folder: Path, names: Sequence[str], decoder: dict[str, int]
) -> None:
    network = fresh(names, decoder=decoder)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(CheckpointError, match="does not fit this architecture"):
        Origin.read(folder).fill(network, names)
    torch.testing.assert_close(dict(network.state_dict()), before, rtol=0, atol=0)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no model"):
        Origin.read(tmp_path / "gone")


def official_copy(network: DiffusionInstNetwork) -> dict[str, Tensor]:
    """The network under official names; how is told where conversion itself is tested."""
    path = Path(__file__).with_name("test_convert.py")
    spec = importlib.util.spec_from_file_location("official_names", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    copy: dict[str, Tensor] = module.official_copy(network)
    return copy


def test_official_files_are_read_as_they_are(tmp_path: Path) -> None:
    small = Config().updated(
        model={
            "num_classes": 4,
            "backbone": {"name": "resnet18"},
            "mask_branch": {"width": 16, "depth": 1},
            "decoder": {"stages": 1, "width": 32, "dynamic_width": 8, "feedforward": 32},
        }
    )
    torch.manual_seed(0)
    official = DiffusionInstNetwork(small.model)
    torch.save({"model": official_copy(official)}, tmp_path / "model_final.pth")
    origin = Origin.read(tmp_path / "model_final.pth")
    assert origin.config.model == small.model
    ours = origin.config.updated(model={"num_classes": 2, "class_names": ["cat", "dog"]})
    network = DiffusionInstNetwork(ours.model)
    assert "re-initialised for cat, dog" in origin.fill(network, ["cat", "dog"])
    torch.testing.assert_close(others(network), others(official), rtol=0, atol=0)


def test_a_backbone_alone_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "r18.pth"
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), path)
    wrong = r"r18\.pth holds a backbone only; give it as --model\.backbone\.weights-file"
    with pytest.raises(ValueError, match=wrong):
        Origin.read(path)


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


def test_a_run_starts_from_the_weights(
    old: DiffusionInstNetwork,
    folder: Path,
    renamed: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    small = {"iterations": 1, "warmup": 0, "milestones": [], "proposals": 8, "loggers": ["csv"]}
    chosen = Config.from_preset("tiny").updated(
        augment={"short_sides": [48]},
        preprocess={"short_side": 48},
        sampler={"proposals": 8},
        train={**small, "lr": 1e-12},  # nothing moves
    )
    with caplog.at_level(logging.INFO, logger="diffinst"):
        out = fit(renamed, chosen, tmp_path / "out", origin=Origin.read(folder), progress=False)
    assert "class layers kept for box, disc; re-initialised for ring" in caplog.text
    assert "random weights" not in caplog.text
    network, saved = store.load(out)
    assert saved.model.class_names == ("ring", "box", "disc")
    weights = {n: p for n, p in old.named_parameters() if "class_logits" not in n}
    found = {n: p for n, p in network.named_parameters() if "class_logits" not in n}
    torch.testing.assert_close(found, weights, rtol=0, atol=1e-9)
    for name, rows in class_layers(network).items():
        torch.testing.assert_close(rows[[1, 2]], class_layers(old)[name][[1, 0]], rtol=0, atol=1e-9)
