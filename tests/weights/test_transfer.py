"""Does a run on other classes start from everything that still fits?"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from diffinst import DiffusionInst
from diffinst.config import Config
from diffinst.models.network import DiffusionInstNetwork
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


def test_classes_without_names_are_called_as_results_call_them(
    tiny: DiffusionInst, tmp_path: Path
) -> None:
    origin = Origin.read(tiny.save_pretrained(tmp_path / "model"))
    names = list(tiny.class_names)
    assert origin.config.model.class_names == () and names[0] == "class 0"
    assert "all weights from" in origin.fill(fresh(names), names)


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


R18: dict[str, object] = {"name": "resnet18", "freeze_levels": 0}


def small(
    backbone: Mapping[str, object] = R18, *, preset: str = "r50-coco", width: int = 256
) -> Config:
    """A preset with its backbone, and little behind it."""
    return Config.from_preset(preset).updated(
        model={
            "num_classes": 2,
            "class_names": ["cat", "dog"],
            "backbone": dict(backbone),
            "mask_branch": {"width": 8, "depth": 1},
            "decoder": {
                "stages": 1, "feedforward": 8, "dynamic_width": 4, "width": width, "heads": 4,
            },
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in torchvision's layout; test_detectors tells that its numbers come out the same."""
    torch.manual_seed(0)
    model = resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d)
    path = tmp_path_factory.mktemp("detector") / "maskrcnn.pth"
    torch.save({f"backbone.{key}": value for key, value in model.state_dict().items()}, path)
    return path


@pytest.fixture(scope="module")
def parts_origin(detector: Path) -> Origin:
    return Origin.read(detector)


def test_a_detector_gives_backbone_and_pyramid(detector: Path, parts_origin: Origin) -> None:
    assert not parts_origin.whole and parts_origin.config.model.backbone.name == "resnet18"
    assert parts_origin.config.train == Config.from_preset("r50-coco").train
    network = DiffusionInstNetwork(small().model)
    before = {n: v.clone() for n, v in network.state_dict().items()}
    assert parts_origin.fill(network, ["cat", "dog"]) == (
        f"{detector} gives the backbone (100 tensors) and pyramid (16 tensors); "
        "new are mask branch and decoder"
    )
    theirs = torch.load(detector, weights_only=True)
    state = network.state_dict()
    for key, name in (
        ("backbone.body.layer2.0.conv1.weight", "backbone.body.layer2.0.conv1.weight"),
        ("backbone.body.layer2.0.bn1.running_mean", "backbone.body.layer2.0.conv1.norm_mean"),
        ("backbone.fpn.layer_blocks.3.0.bias", "fpn.outputs.3.bias"),
    ):
        assert torch.equal(state[name], theirs[key])
    fresh = [k for k in before if not k.startswith(("backbone.", "fpn."))]
    assert all(torch.equal(state[key], before[key]) for key in fresh)


def test_a_pyramid_of_another_width_stays_new(detector: Path, parts_origin: Origin) -> None:
    network = DiffusionInstNetwork(small(width=96).model)
    assert parts_origin.fill(network, ["cat", "dog"]) == (
        f"{detector} gives the backbone (100 tensors); "
        "new are pyramid (256 wide there, 96 here), mask branch and decoder"
    )


def test_norms_that_are_trained_get_the_statistics(detector: Path, parts_origin: Origin) -> None:
    network = DiffusionInstNetwork(small({**R18, "norm": "train"}).model)
    assert "backbone (100 tensors) and pyramid" in parts_origin.fill(network, ["cat", "dog"])
    theirs, state = torch.load(detector, weights_only=True), network.state_dict()
    for key in ("bn1.running_var", "layer3.0.downsample.1.weight", "layer4.1.bn2.bias"):
        assert torch.equal(state[f"backbone.body.{key}"], theirs[f"backbone.body.{key}"])


def test_another_backbone_is_told_the_preset_that_fits(parts_origin: Origin) -> None:
    nano = DiffusionInstNetwork(small({}, preset="nano").model)
    with pytest.raises(CheckpointError, match=r"gives the backbone resnet18, which does not fit "):
        parts_origin.fill(nano, ["cat", "dog"])
    names = ("resnet50.tv_in1k", "swin_base_patch4_window12_384.ms_in22k")
    for name, preset in zip(names, ("r50-coco", "swin-b-coco"), strict=True):
        config = parts_origin.config.updated(model={"backbone": {"name": name}})
        with pytest.raises(CheckpointError) as error:
            replace(parts_origin, config=config).fill(nano, ["cat", "dog"])
        assert str(error.value).endswith(
            f"gives the backbone {name}, which does not fit mobilenetv2_100; "
            f"use --preset {preset}, or --model.backbone.name {name}"
        )


def test_pixels_read_in_another_way_are_refused(parts_origin: Origin) -> None:
    network = DiffusionInstNetwork(small({**R18, "image_mean": (127, 127, 127)}).model)
    with pytest.raises(CheckpointError, match=r"needs model\.backbone\.image_mean \(123\.675"):
        parts_origin.fill(network, ["cat", "dog"])


def test_a_configuration_keeps_its_model_but_reads_as_the_weights_do(parts_origin: Origin) -> None:
    caffe = parts_origin.config.updated(model={"backbone": {"stride_in_1x1": True}})
    nano = Config.from_preset("nano")
    given = nano.updated(model={"backbone": {"image_std": (1, 1, 1)}})
    assert replace(parts_origin, config=caffe).onto(given) == nano.updated(
        model={"backbone": {"stride_in_1x1": True}}
    )
    swin = "swin_base_patch4_window12_384.ms_in22k"
    wide = parts_origin.config.updated(model={"backbone": {"name": swin}})
    preset = Config.from_preset("swin-b-coco")
    assert replace(parts_origin, config=wide).onto(preset) == preset.updated(
        model={"backbone": {"name": swin}}
    )


def test_a_detector_by_name(
    detector: Path, parts_origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = torch.load(detector, weights_only=True)
    load = "load_state_dict_from_url"
    monkeypatch.setattr(torchvision.models._api, load, lambda *_, **__: state)
    found = Origin.read("torchvision:maskrcnn_resnet50_fpn")
    torch.testing.assert_close(found.tensors, parts_origin.tensors, rtol=0, atol=0)


def test_a_folder_of_safetensors(detector: Path, tmp_path: Path) -> None:
    """As transformers writes it: with a config.json that is not ours."""
    save_file(torch.load(detector, weights_only=True), str(tmp_path / "model.safetensors"))
    (tmp_path / "config.json").write_text('{"model_type": "mask2former"}')
    for source in (tmp_path, tmp_path / "model.safetensors"):
        assert not Origin.read(source).whole
