"""Does encoding ignore the padding, and do masks agree wherever a filter is evaluated?"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from diffinst.config import Config, ModelConfig
from diffinst.models.network import DiffusionInstNetwork
from diffinst.ops.masks import enlarge, map_points
from diffinst.structures import ImageBatch


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
    features = tiny.encode(two_images()).features
    assert [tuple(p.shape) for p in features.pyramid] == [
        (2, 32, 64 // s, 96 // s) for s in (4, 8, 16, 32)
    ]
    assert features.mask_features.shape == (2, 8, 16, 24)
    assert features.sizes == ((50, 90), (64, 40))


@torch.no_grad()
def test_what_lies_in_the_padding_does_not_matter(tiny: DiffusionInstNetwork) -> None:
    clean = two_images()
    dirty = clean.pixels.clone()
    dirty[0, :, 50:] = 200
    dirty[0, :, :, 90:] = 77
    dirty[1, :, :, 40:] = 255
    before = dirty.clone()
    a = tiny.encode(clean).features
    b = tiny.encode(ImageBatch(dirty, clean.sizes)).features
    for x, y in zip((*a.pyramid, a.mask_features), (*b.pyramid, b.mask_features), strict=True):
        assert torch.equal(x, y)
    assert torch.equal(dirty, before)  # the caller's pixels stay


@torch.no_grad()
def test_padding_is_the_mean_colour(tiny: DiffusionInstNetwork) -> None:
    # zero after normalisation, so an image filled up with the mean is the same image
    mean = torch.tensor(tiny.config.backbone.image_mean).view(3, 1, 1)
    pixels = two_images().pixels[:1].clone()
    pixels[0, :, 50:] = mean
    pixels[0, :, :, 90:] = mean
    padded = tiny.encode(ImageBatch(pixels, ((50, 90),))).features.mask_features
    filled = tiny.encode(ImageBatch(pixels, ((64, 96),))).features.mask_features
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
        for a, b in zip(alone.features.pyramid, together.features.pyramid, strict=True):
            torch.testing.assert_close(a[0], b[i], rtol=1e-4, atol=1e-4)
        one = tiny.denoise(alone, boxes[None], times[i : i + 1])[-1]
        torch.testing.assert_close(one.logits[0], both.logits[i], rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_bytes_and_floats_are_the_same_image(tiny: DiffusionInstNetwork) -> None:
    pixels = torch.randint(256, (1, 3, 64, 64), dtype=torch.uint8)
    a, b = (tiny.encode(ImageBatch(p, ((64, 64),))) for p in (pixels, pixels.float()))
    assert torch.equal(a.features.mask_features, b.features.mask_features)


def scene(layout_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Filters, boxes and images of three instances, two of them on the first image."""
    filters = torch.randn(3, layout_size, generator=torch.Generator().manual_seed(1))
    boxes = torch.tensor([[4.0, 4, 30, 30], [10, 10, 80, 45], [2, 0, 40, 64]])
    return filters, boxes, torch.tensor([0, 0, 1])


@torch.no_grad()
@pytest.mark.parametrize("coordinates", [False, True])
def test_a_filter_says_the_same_on_the_map_and_at_its_points(coordinates: bool) -> None:
    model = network(model_config(coordinates=coordinates))
    assert model.layout.size == (169 if coordinates else 153)
    features = model.encode(two_images()).features
    filters, boxes, image = scene(model.layout.size)
    on_map = model.map_logits(features, filters, boxes, image)
    assert on_map.shape == (3, 16, 24)
    points = map_points((16, 24), filters.device).expand(3, -1, -1)
    at_points = model.point_logits(features, filters, boxes, image, points)
    torch.testing.assert_close(at_points, on_map.flatten(1), rtol=1e-3, atol=1e-3)
    # the box matters only where the filter sees coordinates
    moved = model.map_logits(features, filters, boxes + 5, image)
    assert torch.allclose(moved, on_map) != coordinates


@torch.no_grad()
def test_grids_lie_in_the_enlarged_boxes(tiny: DiffusionInstNetwork) -> None:
    features = tiny.encode(two_images()).features
    filters, boxes, image = scene(tiny.layout.size)
    logits, points = tiny.grid_logits(features, filters, boxes, image, 5)
    assert logits.shape == (3, 25) and points.shape == (3, 25, 2)
    # 20 % larger, five cells: the first point lies a tenth of the enlarged box inside it
    large = enlarge(boxes, 0.2)
    expected = large[:, :2] + (large[:, 2:] - large[:, :2]) / 10
    torch.testing.assert_close(points[:, 0], expected)
    again = tiny.point_logits(features, filters, boxes, image, points)
    assert torch.equal(again, logits)


@torch.no_grad()
def test_no_instances_have_no_masks(tiny: DiffusionInstNetwork) -> None:
    features = tiny.encode(two_images()).features
    filters, boxes, image = (x[:0] for x in scene(tiny.layout.size))
    assert tiny.map_logits(features, filters, boxes, image).shape == (0, 16, 24)
    logits, points = tiny.grid_logits(features, filters, boxes, image, 4)
    assert logits.shape == (0, 16) and points.shape == (0, 16, 2)


def test_all_that_learns_gets_a_gradient() -> None:
    model = network().train()
    encoded = model.encode(two_images())
    boxes = torch.tensor([[4.0, 4, 30, 30], [10, 10, 35, 60]]).expand(2, 2, 4)
    loss = torch.zeros(())
    for stage in model.denoise(encoded, boxes, torch.tensor([3, 900])):
        filters, image = stage.filters.flatten(0, 1), torch.tensor([0, 0, 1, 1])
        logits = model.map_logits(encoded.features, filters, boxes.flatten(0, 1), image)
        loss = loss + logits.sin().sum() + stage.logits.sin().sum() + stage.boxes.sin().sum()
    loss.backward()  # type: ignore[no-untyped-call]
    silent = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not silent
    assert model.backbone.body.conv1[0].weight.grad.any()


@torch.no_grad()
def test_bf16_autocast_runs_from_pixels_to_masks(tiny: DiffusionInstNetwork) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        encoded = tiny.encode(two_images())
        boxes = torch.tensor([[4.0, 4, 30, 30], [10, 10, 35, 60]]).expand(2, 2, 4)
        last = tiny.denoise(encoded, boxes, torch.tensor([3, 900]))[-1]
        image = torch.tensor([0, 0, 1, 1])
        flat = last.filters.flatten(0, 1), last.boxes.flatten(0, 1), image
        masks = tiny.map_logits(encoded.features, *flat)
        grid, _ = tiny.grid_logits(encoded.features, *flat, 4)
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
