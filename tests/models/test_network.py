"""Does encoding ignore the padding, and does everything learn?"""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from diffinst.config import Config, ModelConfig
from diffinst.models.network import DiffusionInstNetwork
from diffinst.structures import Encoded, ImageBatch


def model_config(**filters: object) -> ModelConfig:
    """The tiny preset, with fields of its filters changed."""
    return Config.from_preset("tiny").updated(model={"filters": filters}).model


def network(config: ModelConfig | None = None) -> DiffusionInstNetwork:
    torch.manual_seed(0)
    return DiffusionInstNetwork(config or model_config()).eval()


@pytest.fixture(scope="module")
def tiny() -> DiffusionInstNetwork:
    return network()


def two_images() -> ImageBatch:
    """50 x 90 and 64 x 40 in 64 x 96."""
    pixels = torch.zeros(2, 3, 64, 96)
    generator = torch.Generator().manual_seed(0)
    pixels[0, :, :50, :90] = torch.rand(3, 50, 90, generator=generator) * 255
    pixels[1, :, :, :40] = torch.rand(3, 64, 40, generator=generator) * 255
    return ImageBatch(pixels, ((50, 90), (64, 40)))


@torch.no_grad()
def test_encoding_gives_a_pyramid_and_mask_features(tiny: DiffusionInstNetwork) -> None:
    encoded = tiny.encode(two_images())
    assert [tuple(p.shape) for p in encoded.pyramid.maps] == [
        (2, 32, 64 // s, 96 // s) for s in (4, 8, 16, 32)
    ]
    assert encoded.mask_features.shape == (2, 8, 16, 24)
    assert encoded.sizes == ((50, 90), (64, 40))


@torch.no_grad()
def test_what_lies_in_the_padding_does_not_matter(tiny: DiffusionInstNetwork) -> None:
    clean = two_images()
    dirty = clean.pixels.clone()
    dirty[0, :, 50:] = 200
    dirty[0, :, :, 90:] = 77
    dirty[1, :, :, 40:] = 255
    before = dirty.clone()
    a = tiny.encode(clean)
    b = tiny.encode(ImageBatch(dirty, clean.sizes))
    assert torch.equal(a.pyramid.table, b.pyramid.table)
    assert torch.equal(a.mask_features, b.mask_features)
    assert torch.equal(dirty, before)  # the caller's pixels stay


@torch.no_grad()
def test_padding_is_the_mean_colour(tiny: DiffusionInstNetwork) -> None:
    # zero after normalisation, so an image filled up with the mean is the same image
    mean = torch.tensor(tiny.config.backbone.image_mean).view(3, 1, 1)
    pixels = two_images().pixels[:1].clone()
    pixels[0, :, 50:] = mean
    pixels[0, :, :, 90:] = mean
    padded = tiny.encode(ImageBatch(pixels, ((50, 90),))).mask_features
    filled = tiny.encode(ImageBatch(pixels, ((64, 96),))).mask_features
    torch.testing.assert_close(padded, filled, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_images_of_two_sizes_are_encoded_as_each_alone(tiny: DiffusionInstNetwork) -> None:
    batch = two_images()
    together = tiny.encode(batch)
    boxes = torch.tensor([[4.0, 4, 30, 30], [10, 10, 35, 60], [0, 0, 40, 50]])
    times = torch.tensor([3, 900])
    both = tiny.denoise(together, boxes.expand(2, 3, 4), times)[-1]
    for i in range(2):
        alone = tiny.encode(ImageBatch(batch.pixels[i : i + 1], batch.sizes[i : i + 1]))
        for a, b in zip(alone.pyramid.maps, together.pyramid.maps, strict=True):
            torch.testing.assert_close(a[0], b[i], rtol=1e-4, atol=1e-4)
        one = tiny.denoise(alone, boxes[None], times[i : i + 1])[-1]
        torch.testing.assert_close(one.logits[0], both.logits[i], rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_bytes_and_floats_are_the_same_image(tiny: DiffusionInstNetwork) -> None:
    pixels = torch.randint(256, (1, 3, 64, 64), dtype=torch.uint8)
    a, b = (tiny.encode(ImageBatch(p, ((64, 64),))) for p in (pixels, pixels.float()))
    assert torch.equal(a.mask_features, b.mask_features)


def test_all_that_learns_gets_a_gradient() -> None:
    model = network().train()
    encoded = model.encode(two_images())
    boxes = torch.tensor([[4.0, 4, 30, 30], [10, 10, 35, 60]]).expand(2, 2, 4)
    loss = torch.zeros(())
    for stage in model.denoise(encoded, boxes, torch.tensor([3, 900])):
        filters, image = stage.filters.flatten(0, 1), torch.tensor([0, 0, 1, 1])
        logits = model.mask_head.on_map(encoded.mask_features, filters, boxes.flatten(0, 1), image)
        loss = loss + logits.sin().sum() + stage.logits.sin().sum() + stage.boxes.sin().sum()
    loss.backward()
    silent = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not silent
    first = model.backbone.get_parameter("body.conv1.0.weight").grad
    assert first is not None and first.any()


@torch.no_grad()
def test_bf16_autocast_runs_from_pixels_to_masks(tiny: DiffusionInstNetwork) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        encoded = tiny.encode(two_images())
        boxes = torch.tensor([[4.0, 4, 30, 30], [10, 10, 35, 60]]).expand(2, 2, 4)
        last = tiny.denoise(encoded, boxes, torch.tensor([3, 900]))[-1]
        image = torch.tensor([0, 0, 1, 1])
        flat = last.filters.flatten(0, 1), last.boxes.flatten(0, 1), image
        masks = tiny.mask_head.on_map(encoded.mask_features, *flat)
        grid = tiny.mask_head.on_grid(encoded.mask_features, *flat, 4)
    assert masks.isfinite().all() and grid.isfinite().all() and last.boxes.dtype == torch.float32


@pytest.mark.parametrize("classes", range(1, 11))
def test_the_number_of_classes_touches_the_class_heads_only(
    tiny: DiffusionInstNetwork, classes: int
) -> None:
    other = network(model_config().model_copy(update={"num_classes": classes}))
    for part in ("backbone", "fpn"):  # drawn before the decoder, with the same seed
        expected = dict(getattr(tiny, part).named_parameters())
        for name, parameter in getattr(other, part).named_parameters():
            assert torch.equal(parameter, expected[name]), name
    for name, module in other.mask_branch.named_modules():
        if isinstance(module, nn.Conv2d):
            fan = (module.in_channels + module.out_channels) * math.prod(module.kernel_size)
            bound = math.sqrt(6 / fan)  # Xavier-uniform
            assert 0.7 * bound < module.weight.abs().max() <= bound, name
        if isinstance(module, nn.BatchNorm2d):
            assert bool((module.weight == 1).all()) and not module.bias.any()
    shapes = {n: p.shape for n, p in tiny.named_parameters()}
    changed = {n for n, p in other.named_parameters() if p.shape != shapes[n]}
    assert all("class_logits" in name for name in changed) and bool(changed) == (classes != 3)


@torch.no_grad()
def test_an_encoded_batch_can_be_taken_apart_joined_and_expanded(
    tiny: DiffusionInstNetwork,
) -> None:
    both = tiny.encode(two_images())
    first, second = both[0], both[1:]
    assert (len(first), first.sizes, second.sizes) == (1, ((50, 90),), ((64, 40),))
    assert both[-1].sizes == second.sizes and len(both[:0]) == 0
    again = Encoded.cat([first, second])
    assert torch.equal(again.pyramid.table, both.pyramid.table) and again.sizes == both.sizes
    torch.testing.assert_close(again.scale, both.scale)
    boxes = torch.tensor([[[4.0, 4, 30, 30]], [[10.0, 10, 35, 60]], [[0.0, 0, 40, 50]]])
    times = torch.tensor([3, 500, 900])
    several = tiny.denoise(first.expand(3), boxes, times)[-1]
    for i in range(3):
        alone = tiny.denoise(first, boxes[i : i + 1], times[i : i + 1])[-1]
        torch.testing.assert_close(several.boxes[i], alone.boxes[0], rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(several.logits[i], alone.logits[0], rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_what_cannot_be_expanded_or_joined_is_refused(tiny: DiffusionInstNetwork) -> None:
    both = tiny.encode(two_images())
    with pytest.raises(ValueError, match="2 images; only one can be expanded"):
        both.expand(2)
    with pytest.raises(ValueError, match="cannot join 0"):
        Encoded.cat([])
    wide = tiny.encode(ImageBatch(torch.zeros(1, 3, 64, 128), ((64, 128),)))
    with pytest.raises(ValueError, match="all of one padded size"):
        Encoded.cat([both, wide])
