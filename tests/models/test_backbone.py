"""Does any timm network give four maps, do frozen norms fold exactly, does Swin pad, then shift?"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn

from diffinst.config import BackboneConfig
from diffinst.models.backbone import STRIDES, Backbone
from diffinst.models.frozen_norm import FrozenNormConv2d, fold_frozen_norms
from diffinst.models.swin import PadFirstSwinBlock

CHANNELS = {
    "resnet10t": (64, 128, 256, 512),
    "resnet18": (64, 128, 256, 512),
    "mobilenetv2_100": (24, 32, 96, 320),
    "tf_efficientnet_lite0": (24, 40, 112, 320),  # pads inside its convolutions
    "convnext_atto": (40, 80, 160, 320),
    "swin_tiny_patch4_window7_224": (96, 192, 384, 768),
}


def plain(name: str = "resnet10t", freeze_levels: int = 0) -> BackboneConfig:
    return BackboneConfig(name=name, freeze_levels=freeze_levels)


def randomise_norms(body: nn.Module) -> None:
    """Statistics and affine of every BatchNorm as after some training."""
    generator = torch.Generator().manual_seed(0)
    for module in body.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            with torch.no_grad():
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(generator=generator)
                module.running_mean.normal_(generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)


@pytest.mark.parametrize("name", CHANNELS)
def test_four_maps_at_strides_4_to_32(name: str) -> None:
    # 64 x 96: Swin's maps are no multiples of its window of 7, the last, 2 x 3, is smaller than one
    backbone = Backbone(plain(name)).eval()
    with torch.no_grad():
        maps = backbone(torch.rand(2, 3, 64, 96))
    assert backbone.channels == CHANNELS[name]
    wanted = [(2, c, 64 // s, 96 // s) for c, s in zip(CHANNELS[name], STRIDES, strict=True)]
    assert [tuple(m.shape) for m in maps] == wanted
    assert all(bool(m.isfinite().all()) and float(m.std()) > 0 for m in maps)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in backbone.modules())


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv2_100", "tf_efficientnet_lite0"])
def test_folding_frozen_norms_changes_neither_maps_nor_gradients(name: str) -> None:
    body = timm.create_model(name, features_only=True).eval()
    randomise_norms(body)
    folded = copy.deepcopy(body)
    fold_frozen_norms(folded)
    body.double(), folded.double()
    x = torch.rand(1, 3, 64, 96, dtype=torch.float64)
    expected, got = body(x), folded(x)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * float(b.abs().max()))
    for maps in (expected, got):
        sum(m.sin().sum() for m in maps).backward()
    old = dict(body.named_parameters())
    new = dict(folded.named_parameters())
    norms = [n for n, m in body.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert new.keys() == old.keys() - {f"{n}.{p}" for n in norms for p in ("weight", "bias")}
    for key, parameter in new.items():
        wanted = old[key].grad
        assert parameter.grad is not None and wanted is not None and bool(wanted.any())
        torch.testing.assert_close(parameter.grad, wanted, rtol=1e-7, atol=1e-9)


class Twice(nn.Module):
    """A convolution whose output is used behind the norm, and as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        nn.init.constant_(self.norm.bias, 5.0)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        y = self.conv(x)
        return [y, self.norm(y)]


def test_folding_refuses_what_it_cannot_fold() -> None:
    with pytest.raises(ValueError, match=r"cannot be frozen; set backbone.norm to 'train'"):
        fold_frozen_norms(Twice())


@pytest.mark.parametrize(
    "layers",
    [
        pytest.param(lambda: [nn.AvgPool2d(2), nn.BatchNorm2d(3)], id="no convolution"),
        pytest.param(lambda: [nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)], id="a bias"),
    ],
)
def test_norms_elsewhere_are_frozen_too(layers: Callable[[], list[nn.Module]]) -> None:
    body = nn.Sequential(*layers()).eval()
    with torch.no_grad():
        for tensor in (*body[1].parameters(), *body[1].buffers()):
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    x = torch.randn(2, 3, 8, 8)
    wanted = body(x)
    fold_frozen_norms(body)
    torch.testing.assert_close(body(x), wanted, rtol=1e-5, atol=1e-5)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in body.modules())
    assert not any("norm" in name for name, _ in body.named_parameters())


def test_backbones_of_one_image_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"does not run on images of any size .*divisible"):
        Backbone(BackboneConfig(name="maxvit_pico_rw_256", freeze_levels=0))


@pytest.mark.parametrize("name", ["fastvit_t8", "dla34", "vgg11_bn", "swinv2_tiny_window8_256"])
def test_other_families_run(name: str) -> None:
    backbone = Backbone(BackboneConfig(name=name, freeze_levels=0)).eval()
    with torch.no_grad():
        maps = backbone(torch.rand(1, 3, 64, 96))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (c, 64 // s, 96 // s) for c, s in zip(backbone.channels, (4, 8, 16, 32), strict=True)
    ]


def test_trained_norms_stay_and_learn() -> None:
    backbone = Backbone(BackboneConfig(name="resnet10t", freeze_levels=0, norm="train")).train()
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and not any(isinstance(m, FrozenNormConv2d) for m in backbone.modules())
    first = norms[0]
    assert first.running_mean is not None and not first.running_mean.any()
    backbone(torch.rand(2, 3, 64, 64))
    assert first.running_mean.any() and first.weight.requires_grad


def frozen_parts(backbone: Backbone, depth: int = 1) -> set[str]:
    """Leading name parts of what does not learn; none of them may also learn."""

    def parts(learns: bool) -> set[str]:
        return {
            ".".join(name.split(".")[:depth])
            for name, parameter in backbone.body.named_parameters()
            if parameter.requires_grad == learns
        }

    assert not parts(True) & parts(False)
    return parts(False)


@pytest.mark.parametrize(
    ("levels", "frozen"),
    [
        (0, set()),
        (1, {"conv1", "layer1"}),
        (2, {"conv1", "layer1", "layer2"}),
        (4, {"conv1", "layer1", "layer2", "layer3", "layer4"}),
    ],
)
def test_freezing_a_resnet_stops_behind_the_level(levels: int, frozen: set[str]) -> None:
    assert frozen_parts(Backbone(plain("resnet10t", levels))) == frozen


def test_freezing_looks_into_containers() -> None:
    backbone = Backbone(plain("mobilenetv2_100", 1))  # blocks.1 is the last at stride 4
    assert frozen_parts(backbone, depth=2) == {"conv_stem.weight", "blocks.0", "blocks.1"}
    assert frozen_parts(Backbone(plain("convnext_atto", 1))) == {"stem_0", "stem_1", "stages_0"}


def test_local_weights_give_the_features_of_their_network(tmp_path: Path) -> None:
    source = timm.create_model("resnet10t").eval()
    randomise_norms(source)
    file = tmp_path / "weights.safetensors"
    save_file(source.state_dict(), str(file))
    config = BackboneConfig(name="resnet10t", freeze_levels=1, weights_file=file)
    backbone = Backbone(config, pretrained=True).eval()
    expected = timm.create_model("resnet10t", features_only=True, out_indices=(1, 2, 3, 4)).eval()
    expected.load_state_dict({k: source.state_dict()[k] for k in expected.state_dict()})
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for a, b in zip(backbone(x), expected(x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    config = BackboneConfig(name="resnet10t", weights_file=tmp_path / "gone.safetensors")
    with pytest.raises(FileNotFoundError, match=r"gone.safetensors does not exist.*resnet10t.*hub"):
        Backbone(config, pretrained=True)
    Backbone(config)  # not asked for: a loaded model brings its own


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet5000", r"backbone.name 'resnet5000' cannot be built.*timm.list_models"),
        ("vit_tiny_patch16_224", r"vit_tiny_patch16_224 has strides .*16.*needed are \(4, 8, 16"),
    ],
)
def test_unusable_names_say_what_would_be_usable(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Backbone(plain(name))


def test_stochastic_depth_acts_in_training_only() -> None:
    backbone = Backbone(BackboneConfig(name="resnet10t", freeze_levels=0, drop_path=0.9))
    for module in backbone.modules():  # timm starts each residual branch at zero
        if isinstance(module, FrozenNormConv2d):
            module.norm_weight.fill_(1)
    x = torch.rand(4, 3, 64, 64)
    with torch.no_grad():
        torch.manual_seed(0)
        assert not torch.equal(backbone.train()(x)[-1], backbone(x)[-1])
        assert torch.equal(backbone.eval()(x)[-1], backbone(x)[-1])


def swin_block(kind: type[SwinTransformerBlock], shift: int) -> SwinTransformerBlock:
    torch.manual_seed(0)
    block = kind(
        dim=8,
        input_resolution=(8, 8),
        num_heads=2,
        window_size=4,
        shift_size=shift,
        always_partition=True,
        dynamic_mask=True,
    )
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    return block.double().eval()


def pad_then_shift(block: SwinTransformerBlock, x: Tensor, shift: int) -> Tensor:
    """The Swin block on (H, W, C) as one attention over all pixels, windows in its bias."""
    height, width, channels = x.shape
    rows, columns = math.ceil(height / 4) * 4, math.ceil(width / 4) * 4
    padded = torch.zeros(rows, columns, channels, dtype=x.dtype)
    padded[:height, :width] = block.norm1(x)
    query, key, value = block.attn.qkv(padded.view(-1, channels)).chunk(3, dim=-1)
    pixels = [divmod(i, columns) for i in range(rows * columns)]
    place = [((row - shift) % rows, (column - shift) % columns) for row, column in pixels]

    def region(position: int, length: int) -> int:  # what the roll brought together stays apart
        return 0 if position < length - 4 else 1 if position < length - shift else 2

    bias = torch.full((2, len(query), len(query)), -math.inf, dtype=x.dtype)
    regions = [(region(row, rows), region(column, columns)) for row, column in place]
    for i, (row, column) in enumerate(place):
        for j, (other_row, other_column) in enumerate(place):
            if (row // 4, column // 4) == (other_row // 4, other_column // 4):
                offset = (row - other_row + 3) * 7 + (column - other_column + 3)
                bias[:, i, j] = block.attn.relative_position_bias_table[offset]
                bias[:, i, j] += 0 if shift == 0 or regions[i] == regions[j] else -100
    heads = []
    for h, part in enumerate((slice(0, 4), slice(4, 8))):
        logits = query[:, part] @ key[:, part].T / 2 + bias[h]  # 2 = sqrt(4 channels a head)
        heads.append(logits.softmax(-1) @ value[:, part])
    mixed = block.attn.proj(torch.cat(heads, dim=-1)).view(rows, columns, channels)
    x = x + mixed[:height, :width]
    result: Tensor = x + block.mlp(block.norm2(x))
    return result


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (3, 2)])
@pytest.mark.parametrize("shift", [0, 2])
@torch.no_grad()
def test_swin_pads_to_windows_before_it_shifts(size: tuple[int, int], shift: int) -> None:
    block = swin_block(PadFirstSwinBlock, shift)
    x = torch.randn(*size, 8, dtype=torch.float64)
    expected = pad_then_shift(block, x, shift)
    torch.testing.assert_close(block(x[None])[0], expected, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_timm_shifts_first_which_differs_only_where_padding_is_needed() -> None:
    ours, theirs = (swin_block(kind, 2) for kind in (PadFirstSwinBlock, SwinTransformerBlock))
    whole, odd = (torch.randn(1, *size, 8, dtype=torch.float64) for size in ((8, 8), (7, 10)))
    torch.testing.assert_close(ours(whole), theirs(whole))
    assert (ours(odd) - theirs(odd)).abs().max() > 1e-3


def test_every_swin_block_pads_first_and_every_output_has_a_norm() -> None:
    backbone = Backbone(plain("swin_tiny_patch4_window7_224"))
    blocks = [m for m in backbone.modules() if isinstance(m, SwinTransformerBlock)]
    assert len(blocks) == 2 + 2 + 6 + 2
    assert all(isinstance(b, PadFirstSwinBlock) for b in blocks)
    # the last stage shifts, too, though one window covers its map at 224 pixels
    assert [b.shift_size for b in blocks[-2:]] == [(0, 0), (3, 3)]
    assert [n.normalized_shape for n in backbone.norms] == [(96,), (192,), (384,), (768,)]


@pytest.mark.parametrize("norm", ["frozen", "train"])
def test_the_stride_may_lie_in_the_first_convolution(norm: Literal["frozen", "train"]) -> None:
    with torch.device("meta"):
        ours = Backbone(BackboneConfig(name="resnet50", norm=norm, stride_in_1x1=True)).body
        usual = Backbone(BackboneConfig(name="resnet50", norm=norm)).body
    for stage, stride in ((1, 1), (2, 2), (3, 2), (4, 2)):
        first, second = (f"layer{stage}.0.conv{n}" for n in (1, 2))
        assert ours.get_submodule(first).stride == (stride, stride)
        assert ours.get_submodule(second).stride == (1, 1)
        assert usual.get_submodule(second).stride == (stride, stride)
        assert ours.get_submodule(f"layer{stage}.1.conv1").stride == (1, 1)
