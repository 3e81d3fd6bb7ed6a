"""Do backbone and pyramid of other libraries' detectors compute the same inside ours?"""

from __future__ import annotations

import pickle
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN, maskrcnn_resnet50_fpn_v2
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.misc import FrozenBatchNorm2d

from diffinst.config.model import IMAGENET_MEAN, IMAGENET_STD
from diffinst.models.backbone import Backbone
from diffinst.models.fpn import FeaturePyramid
from diffinst.weights.convert import ConvertError
from diffinst.weights.detectors import Parts, layout, parts
from diffinst.weights.foreign import read_foreign

IMAGE = torch.rand(3, 64, 96, generator=torch.Generator().manual_seed(3)) * 255  # RGB


def lived_in(model: nn.Module) -> Any:
    """Norms with statistics of their own, as after training; some variances are tiny."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | FrozenBatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.weight.data.uniform_(0.3, 0.6)
            module.bias.data.normal_(std=0.1)
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)[0] = 1e-3
        elif isinstance(module, nn.LayerNorm):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(std=0.1)
    return model.eval()


def our_maps(found: Parts) -> tuple[list[Tensor], list[Tensor]]:
    """Of the image in our backbone and, where there is one, our pyramid."""
    body = Backbone(found.backbone).eval()
    body.load_state_dict(
        {k[len("backbone.") :]: v for k, v in found.tensors.items() if k.startswith("backbone.")}
    )
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        maps = body(((IMAGE - mean) / std)[None])
        pyramid = {k[len("fpn.") :]: v for k, v in found.tensors.items() if k.startswith("fpn.")}
        if not pyramid:
            return maps, []
        fpn = FeaturePyramid(body.channels, 256)
        fpn.load_state_dict(pyramid)
        return maps, list(fpn(maps))


def assert_same(ours: list[Tensor], theirs: list[Tensor]) -> None:
    assert len(ours) == len(theirs) == 4
    for a, b in zip(ours, theirs, strict=True):
        assert b.std() > 0.01  # something to compare
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * max(1, float(b.abs().max())))


@cache
def maskrcnn(version: str) -> Any:
    """Torchvision's, as its published weights are: v1 has frozen norms without eps."""
    torch.manual_seed(0)
    if version == "v2":
        return lived_in(maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None))
    norm = FrozenBatchNorm2d
    body = resnet_fpn_backbone(backbone_name="resnet50", weights=None, norm_layer=norm)
    model = MaskRCNN(body, 91)
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.eps = 0.0
    return lived_in(model)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_torchvision(version: str) -> None:
    model = maskrcnn(version)
    state = model.state_dict()
    assert layout(state) == "torchvision"
    found = parts(state, "x")
    assert found.backbone.name == "resnet50.tv_in1k" and not found.backbone.stride_in_1x1
    pixels = model.transform.normalize(IMAGE / 255)[None]
    with torch.no_grad():
        maps = list(model.backbone.body(pixels).values())
        pyramid = list(model.backbone(pixels).values())[:4]  # the fifth is pooled
    ours = our_maps(found)
    assert_same(ours[0], maps)
    assert_same(ours[1], pyramid)


def test_torchvision_of_old() -> None:
    """The published file names the pyramid's convolutions without the sequence around them."""
    full = maskrcnn("v1").state_dict()
    renamed = {
        k.replace(".0.weight", ".weight").replace(".0.bias", ".bias")
        if k.startswith("backbone.fpn.")
        else k: v
        for k, v in full.items()
    }
    assert "backbone.fpn.inner_blocks.0.weight" in renamed
    assert parts(renamed, "x").tensors.keys() == parts(full, "x").tensors.keys()


class Detectron2(nn.Module):
    """A ResNet-50 FPN as detectron2 has it; `caffe`: BGR, std 1, stride in 1x1, folded norms."""

    def __init__(self, *, caffe: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.caffe = caffe
        self.body = lived_in(torchvision.models.resnet50(weights=None))
        self.fpn = FeaturePyramid((256, 512, 1024, 2048), 256)
        self.mean, self.std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
        if not caffe:
            return
        self.mean, self.std = torch.tensor([103.53, 116.28, 123.675]), torch.ones(3)
        for module in self.body.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.zero_()
                module.running_var.fill_(1 - 1e-5)
            elif isinstance(module, torchvision.models.resnet.Bottleneck):
                module.conv1.stride, module.conv2.stride = module.conv2.stride, module.conv1.stride
        self.body.get_parameter("conv1.weight").data.div_(57)

    @torch.no_grad()
    def maps(self) -> list[Tensor]:
        """Of the image; its pyramid is written in our own class."""
        body: Any = self.body
        pixels = IMAGE.flip(0) if self.caffe else IMAGE
        pixels = (pixels - self.mean.view(3, 1, 1)) / self.std.view(3, 1, 1)
        x = body.maxpool(body.relu(body.bn1(body.conv1(pixels[None]))))
        maps = []
        for stage in (body.layer1, body.layer2, body.layer3, body.layer4):
            x = stage(x)
            maps.append(x)
        return maps

    def file(self) -> dict[str, Any]:
        """As in the model zoo: arrays under `model`."""
        state: dict[str, Any] = {"proposal_generator.rpn_head.conv.bias": torch.zeros(256).numpy()}
        for key, value in self.body.state_dict().items():
            if key.startswith("fc.") or key.endswith("num_batches_tracked"):
                continue
            for n in (1, 2, 3, 4):
                key = key.replace(f"layer{n}.", f"res{n + 1}.").replace(f"bn{n}.", f"conv{n}.norm.")
            key = key.replace("downsample.0.", "shortcut.").replace("downsample.1", "shortcut.norm")
            key = key if key.startswith("res") else f"stem.{key}"
            state[f"backbone.bottom_up.{key}"] = value.numpy()
        for name, convs in (("lateral", self.fpn.laterals), ("output", self.fpn.outputs)):
            for level, conv in enumerate(convs, start=2):
                for kind, value in conv.state_dict().items():
                    state[f"backbone.fpn_{name}{level}.{kind}"] = value.numpy()
        return {"model": state, "__author__": "Detectron2 Model Zoo"}


@cache
def detectron2(*, caffe: bool) -> Detectron2:
    return Detectron2(caffe=caffe)


@pytest.mark.parametrize("caffe", [True, False])
def test_detectron2(caffe: bool, tmp_path: Path) -> None:
    model = detectron2(caffe=caffe)
    (tmp_path / "model_final.pkl").write_bytes(pickle.dumps(model.file()))
    state = read_foreign(tmp_path / "model_final.pkl")
    assert layout(state) == "detectron2"
    found = parts(state, "x")
    assert found.backbone.stride_in_1x1 is caffe
    maps = model.maps()
    ours = our_maps(found)
    assert_same(ours[0], maps)
    with torch.no_grad():
        assert_same(ours[1], list(model.fpn(maps)))


def detectron2_state() -> dict[str, Tensor]:
    arrays = detectron2(caffe=True).file()["model"]
    return {key: torch.from_numpy(value) for key, value in arrays.items()}


def test_detectron2_without_statistics_is_the_same() -> None:
    state = detectron2_state()
    few = {k: v for k, v in state.items() if ".running_" not in k}
    assert len(few) < len(state)
    torch.testing.assert_close(parts(few, "x").tensors, parts(state, "x").tensors)


def test_detectron2_says_its_pixels_itself() -> None:
    state = detectron2_state()
    given = {
        **state,
        "pixel_mean": torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1),
        "pixel_std": torch.tensor(IMAGENET_STD).view(3, 1, 1),
    }
    stem = "backbone.bottom_up.stem.conv1.weight"
    assert torch.equal(parts(given, "x").tensors["backbone.body.conv1.weight"], state[stem])
    given["pixel_mean"] = torch.tensor([127.5, 127.5, 127.5])
    with pytest.raises(ConvertError, match=r"x takes off \[127\.5, .*only ImageNet's mean will do"):
        parts(given, "x")


def test_a_pyramid_of_another_form_is_omitted() -> None:
    state = detectron2_state()
    one = {k: v for k, v in state.items() if "fpn_lateral2" not in k}
    assert not [key for key in parts(one, "x").tensors if key.startswith("fpn.")]


def test_a_backbone_with_a_hole_is_refused() -> None:
    state = detectron2_state()
    del state["backbone.bottom_up.res3.1.conv2.weight"]
    with pytest.raises(ConvertError, match=r"x does not fit.*1 missing: backbone\.body\.layer2\.1"):
        parts(state, "x")


def test_mask2former(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    swin = transformers.SwinConfig(
        embed_dim=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], window_size=7,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    little = dict.fromkeys(("hidden_dim", "feature_size", "mask_feature_size"), 32)
    config = transformers.Mask2FormerConfig(
        backbone_config=swin, encoder_layers=1, decoder_layers=1, dim_feedforward=32,
        encoder_feedforward_dim=32, num_attention_heads=2, num_queries=4, **little,
    )  # fmt: skip
    model = lived_in(transformers.Mask2FormerForUniversalSegmentation(config))
    for name, parameter in model.named_parameters():
        if "relative_position_bias" in name:  # zero when fresh
            nn.init.normal_(parameter)
    model.save_pretrained(tmp_path)  # under the names that files on the hub have
    state = read_foreign(tmp_path / "model.safetensors")
    assert layout(state) == "mask2former"
    found = parts(state, "x")
    assert found.backbone.name == "swin_tiny_patch4_window7_224.ms_in1k"
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    encoder = model.get_submodule("model.pixel_level_module.encoder")
    with torch.no_grad():
        maps = list(encoder(((IMAGE - mean) / std)[None]).feature_maps)
    ours = our_maps(found)
    assert_same(ours[0], maps)
    assert ours[1] == []


def test_what_is_no_detector() -> None:
    assert layout(["backbone.body.conv1.weight", "decoder.stages.0.norm1.weight"]) is None
    assert layout(["backbone.bottom_up.stem.conv1.weight", "head.head_series.0.x"]) is None
    assert layout([]) is None
    with pytest.raises(ConvertError, match="x holds no detector"):
        parts({}, "x")
