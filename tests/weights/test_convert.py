"""Foreign weights: official models by their manifests, ImageNet backbones by their features."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from diffinst.config import Config
from diffinst.models.network import DiffusionInstNetwork
from diffinst.weights.convert import ConvertError, convert, convert_backbone, convert_official

STEPS = 1000


def meta_network(config: Config) -> DiffusionInstNetwork:
    with torch.device("meta"):
        return DiffusionInstNetwork(config.model)


def official_schedule() -> dict[str, Tensor]:
    """Written anew from Nichol and Dhariwal (Eq. 17), for the check of the stored tables."""

    def cosine(t: int) -> float:
        return math.cos((t / STEPS + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [min(1 - cosine(t + 1) / cosine(t), 0.999) for t in range(STEPS)]
    betas_tensor = torch.tensor(betas, dtype=torch.float64)
    return {"betas": betas_tensor, "alphas_cumprod": (1 - betas_tensor).cumprod(0)}


def official_copy(network: DiffusionInstNetwork) -> dict[str, Tensor]:
    """A ResNet model under official names, from our names by plain text replacement."""
    stage_parts = {
        "attention.qkv.weight": "self_attn.in_proj_weight",
        "attention.qkv.bias": "self_attn.in_proj_bias",
        "attention.out.": "self_attn.out_proj.",
        "interaction.parameters_of": "inst_interact.dynamic_layer",
        "interaction.out": "inst_interact.out_layer",
        "interaction.": "inst_interact.",
        "expand": "linear1",
        "contract": "linear2",
        "filters": "controller",
        ".time.": ".block_time_mlp.1.",
        "class_tower": "cls_module",
        "box_tower": "reg_module",
        "deltas": "bboxes_delta",
        "decoder.stages": "head.head_series",
    }
    other_parts = {
        "backbone.body.conv1": "backbone.bottom_up.stem.conv1",
        **{f"backbone.body.layer{n}": f"backbone.bottom_up.res{n + 1}" for n in (1, 2, 3, 4)},
        "downsample.0": "shortcut",
        "norm_mean": "norm.running_mean",
        "norm_var": "norm.running_var",
        "norm_": "norm.",
        **{f"fpn.laterals.{n}": f"backbone.fpn_lateral{n + 2}" for n in range(4)},
        **{f"fpn.outputs.{n}": f"backbone.fpn_output{n + 2}" for n in range(4)},
        "decoder.time.layers.0": "head.time_mlp.1",
        "decoder.time.layers.2": "head.time_mlp.3",
        "mask_branch.refine": "head.mask_refine",
        "mask_branch.tower": "head.mask_head",
        "mask_branch.out": f"head.mask_head.{network.config.mask_branch.depth}",
    }
    state = {}
    for key, value in network.state_dict().items():
        for ours, theirs in (stage_parts if "stages" in key else other_parts).items():
            key = key.replace(ours, theirs)
        state[key] = value
    return {**state, **official_schedule()}


@pytest.fixture
def small() -> Config:
    """An R18 model whose every size differs from the preset's."""
    return Config().updated(
        model={
            "num_classes": 7,
            "backbone": {"name": "resnet18"},
            "mask_branch": {"width": 24, "depth": 2, "channels": 6},
            "filters": {"layers": 2, "channels": 6},
            "decoder": {
                "stages": 2,
                "width": 32,
                "dynamic_width": 12,
                "feedforward": 40,
                "class_layers": 2,
                "box_layers": 1,
                "roi_size": 5,
            },
        }
    )


def test_official_round_trip_keeps_every_tensor_and_finds_every_size(small: Config) -> None:
    torch.manual_seed(0)
    network = DiffusionInstNetwork(small.model)
    config, tensors = convert_official(official_copy(network), source="copy")
    assert config.model == small.model
    expected = network.state_dict()
    assert list(tensors) == list(expected)
    assert all(torch.equal(tensors[key], expected[key]) for key in expected)


def test_official_r50_names_are_our_preset() -> None:
    state = official_copy(meta_network(Config.from_preset("r50-coco")))
    assert "backbone.bottom_up.res4.5.conv3.norm.running_var" in state
    assert "head.head_series.5.inst_interact.norm3.bias" in state
    assert "head.mask_head.4.bias" in state
    config, _ = convert_official(state, source="copy")
    assert config == Config.from_preset("r50-coco")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"model": s, "iteration": 5},
        lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
        lambda s: {"model": {"state_dict": s}},
    ],
)
def test_wrapped_checkpoints_are_unwrapped(
    small: Config, wrap: Callable[[dict[str, Tensor]], dict[str, object]]
) -> None:
    config, _ = convert_official(wrap(official_copy(meta_network(small))), source="wrapped")
    assert config.model == small.model


def test_lvis_counts_choose_the_federated_loss(small: Config) -> None:
    state = official_copy(meta_network(small))
    assert convert_official(state, source="x")[0].criterion.class_loss == "focal"
    state["criterion.fed_loss_cls_weights"] = torch.ones(7)
    assert convert_official(state, source="x")[0].criterion.class_loss == "federated_focal"


def test_counters_may_lack(small: Config) -> None:
    state = official_copy(DiffusionInstNetwork(small.model))
    state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    _, tensors = convert_official(state, source="x")
    assert tensors["mask_branch.refine.0.1.num_batches_tracked"] == 0


def test_official_errors_name_file_and_key(small: Config) -> None:
    good = official_copy(meta_network(small))
    key = "head.head_series.1.linear1.bias"
    with pytest.raises(ConvertError, match=r"a\.pth.*1 missing: decoder\.stages\.1\.expand\.bias"):
        convert_official({k: v for k, v in good.items() if k != key}, source="a.pth")
    with pytest.raises(ConvertError, match=r"1 unknown: head\.extra"):
        convert_official({**good, "head.extra": torch.zeros(1)}, source="a.pth")
    with pytest.raises(ConvertError, match=r"\(41,\), expected \(40,\)"):
        convert_official({**good, key: torch.zeros(41)}, source="a.pth")
    filters = "head.head_series.0.controller.bias"
    with pytest.raises(ConvertError, match="filters of 50 numbers"):
        convert_official({**good, filters: torch.zeros(50)}, source="a.pth")
    with pytest.raises(ConvertError, match="another noise schedule"):
        convert_official({**good, "betas": torch.linspace(0, 0.02, STEPS)}, source="a.pth")


def manifests(folder: Path) -> list[Path]:
    return sorted(folder.glob("manifest_*.json"))


@pytest.mark.golden
def test_every_manifest_fits_exactly(reference_dir: Path) -> None:
    found = manifests(reference_dir)
    assert found, f"no manifest_*.json in {reference_dir}"
    tables = {k: torch.from_numpy(v) for k, v in np.load(reference_dir / "01_schedule.npz").items()}
    for path in found:
        manifest = json.loads(path.read_text())
        with torch.device("meta"):
            state = {
                key: torch.empty(entry["shape"], dtype=getattr(torch, entry["dtype"]))
                for key, entry in manifest["keys"].items()
            }
        state.update({k: tables[k] for k in state if k in tables})
        config, tensors = convert_official(state, source=path.name)
        network = meta_network(config)
        shapes = {key: value.shape for key, value in network.state_dict().items()}
        assert {key: value.shape for key, value in tensors.items()} == shapes, path.name
        parameters = list(network.parameters())
        stored_as_buffers = sum(p.numel() for p in parameters) - manifest["n_parameters"]
        assert stored_as_buffers == 0, path.name
        trainable = sum(p.numel() for p in parameters if p.requires_grad)
        assert trainable == manifest["n_trainable"], path.name


def detectron2_copy(state: dict[str, Tensor]) -> dict[str, object]:
    """torchvision's ResNet keys as detectron2 writes them, as numpy arrays."""
    copy: dict[str, object] = {}
    for key, value in state.items():
        if key.endswith("num_batches_tracked"):
            continue
        if not key.startswith("layer"):
            key = f"stem.{key}"
        for n in (1, 2, 3, 4):
            key = key.replace(f"layer{n}", f"res{n + 1}").replace(f"bn{n}", f"conv{n}.norm")
        key = key.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
        copy[key.replace("stem.fc.", "fc1000.")] = value.numpy()
    return copy


def pyramid_maps(name: str, weights: Path) -> list[Tensor]:
    overlay = {"file": str(weights)}
    model = timm.create_model(
        name, features_only=True, pretrained=True, pretrained_cfg_overlay=overlay
    )
    with torch.inference_mode():
        maps: list[Tensor] = model.eval()(fixed_image())
    return maps


def fixed_image() -> Tensor:
    return torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnet_files_give_the_original_features(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    original = getattr(torchvision.models, name)(weights=None).eval()
    for norm in original.modules():  # statistics that matter
        if isinstance(norm, torch.nn.BatchNorm2d):
            assert norm.running_mean is not None and norm.running_var is not None
            norm.running_mean.normal_(std=0.1)
            norm.running_var.uniform_(0.5, 1.5)
    with torch.inference_mode():
        x = original.relu(original.bn1(original.conv1(fixed_image())))
        x = original.layer1(original.maxpool(x))
        expected = [x]
        for layer in (original.layer2, original.layer3, original.layer4):
            expected.append(layer(expected[-1]))
    state = original.state_dict()
    for label, foreign in {"torchvision": state, "detectron2": detectron2_copy(state)}.items():
        timm_name, tensors = convert_backbone(foreign, source=label)
        assert timm_name.partition(".")[0] == name
        path = tmp_path / f"{label}.safetensors"
        save_file(tensors, path)
        maps = pyramid_maps(name, path)[1:]
        for found, wanted in zip(maps, expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("with_head", [True, False])
def test_swin_classifier_loads_into_timm(tmp_path: Path, with_head: bool) -> None:
    torch.manual_seed(0)
    name = "swin_tiny_patch4_window7_224.ms_in1k"
    source = timm.create_model(name).eval()
    official = {}
    for key, value in source.state_dict().items():
        for stage in (1, 2, 3):
            key = key.replace(f"layers.{stage}.downsample", f"layers.{stage - 1}.merging")
        key = key.replace("merging", "downsample").replace("head.fc.", "head.")
        if with_head or not key.startswith("head."):
            official[key] = value
    official["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49).long()
    official["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 49, 49)
    timm_name, tensors = convert_backbone({"model": official}, source="swin")
    assert timm_name == name
    expected = source.state_dict()
    assert all(torch.equal(tensors[key], expected[key]) for key in tensors)
    assert set(tensors) == {k for k in expected if with_head or not k.startswith("head.")}
    path = tmp_path / "swin.safetensors"
    save_file(tensors, path)
    loaded = timm.create_model(
        name, features_only=True, pretrained=True, pretrained_cfg_overlay={"file": str(path)}
    ).state_dict()
    for key, value in loaded.items():
        assert torch.equal(value, expected[key.replace("layers_", "layers.")]), key


def test_backbone_errors_name_what_is_wrong() -> None:
    state = torchvision.models.resnet18(weights=None).state_dict()
    with pytest.raises(ConvertError, match=r"1 missing: layer1\.0\.conv1\.weight"):
        convert_backbone(
            {k: v for k, v in state.items() if k != "layer1.0.conv1.weight"}, source="x"
        )
    with pytest.raises(ConvertError, match="no known backbone"):
        convert_backbone({"features.0.weight": torch.zeros(1)}, source="vgg.pth")
    with pytest.raises(ConvertError, match="BGR"):
        convert_backbone({"conv1_w": torch.zeros(1)}, source="R-50.pkl")


def test_convert_tells_models_from_backbones(small: Config, tmp_path: Path) -> None:
    network = DiffusionInstNetwork(small.model)
    torch.save({"model": official_copy(network)}, tmp_path / "model.pth")
    found = convert(tmp_path / "model.pth")
    assert (found.kind, found.backbone) == ("model", "resnet18")
    assert found.config is not None and found.config.model == small.model
    network.load_state_dict(found.tensors)
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "r18.pth")
    found = convert(tmp_path / "r18.pth")
    assert (found.kind, found.backbone, found.config) == ("backbone", "resnet18", None)
