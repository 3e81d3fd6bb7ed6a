"""Does a network made ready to predict still predict the same, and leave the one it came from?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage import data
from torch import nn

from diffinst import DiffusionInst
from diffinst.acceleration import optimize
from diffinst.acceleration.optimize import bf16_pays, optimized, rounding_hurts
from diffinst.config import BackboneConfig, Config
from diffinst.models.backbone import Backbone
from diffinst.models.frozen_norm import FrozenNormConv2d
from diffinst.models.network import DiffusionInstNetwork
from diffinst.ops.boxes import iou
from diffinst.structures import ImageBatch


def network(**model: object) -> DiffusionInstNetwork:
    """A tiny one whose running statistics are not the initial zeros and ones."""
    torch.manual_seed(0)
    made = DiffusionInstNetwork(Config.from_preset("tiny").updated(model=model).model).eval()
    for norm in made.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.running_mean, -0.5, 0.5)  # type: ignore[arg-type]
            nn.init.uniform_(norm.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    return made


def image() -> ImageBatch:
    generator = torch.Generator().manual_seed(1)
    return ImageBatch(torch.rand(1, 3, 64, 96, generator=generator) * 255, ((60, 96),))


def boxes() -> torch.Tensor:
    return torch.tensor(
        [[[4.0, 8.0, 40.0, 40.0], [30.0, 0.0, 96.0, 60.0], [50.0, 9.0, 60.0, 20.0]]]
    )


@pytest.fixture(scope="module")
def coins() -> NDArray[np.uint8]:
    return np.ascontiguousarray(data.coins()[:200, :256])


BACKBONES = [
    {"name": "resnet18", "norm": "frozen"},
    {"name": "resnet18", "norm": "train", "freeze_levels": 0},
    {"name": "tf_efficientnet_lite0", "norm": "frozen", "freeze_levels": 0},  # pads by itself
    {"name": "swin_tiny_patch4_window7_224", "freeze_levels": 0},
]


@torch.no_grad()
@pytest.mark.parametrize("backbone", BACKBONES, ids=lambda b: f"{b['name']}-{b.get('norm')}")
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_float32_is_the_same_to_rounding(backbone: dict[str, object], norm: str) -> None:
    plain = network(backbone=backbone, mask_branch={"norm": norm})
    before = {k: v.clone() for k, v in plain.state_dict().items()}
    fast = optimized(plain, "fp32")
    one, two = plain.encode(image()), fast.encode(image())
    for a, b in zip(
        (one.pyramid.table, one.mask_features),
        (two.pyramid.table, two.mask_features),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    t = torch.tensor([500])
    for c, d in zip(plain.denoise(one, boxes(), t), fast.denoise(two, boxes(), t), strict=True):
        torch.testing.assert_close(c.logits, d.logits, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(c.boxes, d.boxes, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(c.filters, d.filters, rtol=1e-4, atol=1e-4)
    after = plain.state_dict()
    assert before.keys() == after.keys() and all(
        torch.equal(v, after[k]) for k, v in before.items()
    )


def test_norms_disappear_into_convolutions() -> None:
    fast = optimized(network(), "fp32")
    kinds = (FrozenNormConv2d, nn.BatchNorm2d)
    assert any(isinstance(m, kinds) for m in network().modules())
    assert not any(isinstance(m, kinds) for m in fast.modules())
    assert not any(p.requires_grad for p in fast.parameters())


@torch.no_grad()
@pytest.mark.parametrize("backbone", BACKBONES, ids=lambda b: f"{b['name']}-{b.get('norm')}")
def test_bf16_keeps_scores_boxes_and_filters_in_float32(backbone: dict[str, object]) -> None:
    plain = network(backbone=backbone)
    fast = optimized(plain, "bf16")
    assert fast.dtype == torch.bfloat16 and plain.dtype == torch.float32
    one, two = plain.encode(image()), fast.encode(image())
    assert two.pyramid.table.dtype == torch.bfloat16
    assert two.mask_features.dtype == torch.float32
    t = torch.tensor([500])
    for a, b in zip(plain.denoise(one, boxes(), t), fast.denoise(two, boxes(), t), strict=True):
        assert b.logits.dtype == b.boxes.dtype == b.filters.dtype == torch.float32
        assert b.queries.dtype == torch.bfloat16
        torch.testing.assert_close(a.logits, b.logits, rtol=0.05, atol=0.2)


@pytest.mark.parametrize(
    ("name", "hurts"),
    [
        ("mobilenetv2_100", True),
        ("tf_efficientnet_lite0", True),
        ("resnet18", False),
        ("resnext26ts", False),  # grouped, not depthwise
        ("convnext_atto", False),  # depthwise, LayerNorm
    ],
)
@pytest.mark.parametrize("norm", ["frozen", "train"])
def test_which_backbones_stay_float32(name: str, hurts: bool, norm: str) -> None:
    config = BackboneConfig.model_validate({"name": name, "norm": norm, "freeze_levels": 0})
    assert rounding_hurts(Backbone(config)) == hurts


def test_a_backbone_of_depthwise_convolutions_stays_float32() -> None:
    for backbone, dtype in ((BACKBONES[0], torch.bfloat16), (BACKBONES[2], torch.float32)):
        assert optimized(network(backbone=backbone), "bf16").backbone.dtype == dtype


@pytest.mark.parametrize(
    ("precision", "same", "steps"), [("fp32", 0.999, 1), ("fp32", 0.999, 3), ("bf16", 0.95, 1)]
)
def test_shipped_weights_find_the_same_instances(
    nano: DiffusionInst,
    coins: NDArray[np.uint8],
    precision: optimize.Precision,
    same: float,
    steps: int,
) -> None:
    wanted = nano.predict(coins, steps=steps, proposals=100, threshold=0.5)
    found = nano.optimize(precision).predict(coins, steps=steps, proposals=100, threshold=0.4)
    assert len(wanted) > 8
    assert float(iou(wanted.boxes[:, None], found.boxes[None]).amax(1).min()) >= same


def test_an_optimized_model_cannot_be_saved(tmp_path: Path) -> None:
    fast = DiffusionInst.from_preset("tiny").optimize("fp32")
    with pytest.raises(ValueError, match="save the one it was made from"):
        fast.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="precision 'int8': allowed are fp32, bf16, auto"):
        DiffusionInst.from_preset("tiny").optimize("int8")  # type: ignore[arg-type]


@pytest.mark.parametrize(("half", "chosen"), [(0.5, torch.bfloat16), (0.9, torch.float32)])
def test_auto_takes_bf16_where_it_pays(
    monkeypatch: pytest.MonkeyPatch, half: float, chosen: torch.dtype
) -> None:
    monkeypatch.setattr(optimize, "_probe", lambda dtype: half if dtype == torch.bfloat16 else 1.0)
    bf16_pays.cache_clear()
    assert optimized(network(), "auto").dtype == chosen
    bf16_pays.cache_clear()


def test_the_probe_runs() -> None:
    assert optimize._probe(torch.float32) > 0
