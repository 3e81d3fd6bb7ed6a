"""Are masks made inside windows the same as full-size ones, cut afterwards?"""

from __future__ import annotations

import resource
import sys
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from diffinst.config import Config, Options
from diffinst.inference import masks
from diffinst.inference.pipeline import Pipeline
from diffinst.inference.select import select
from diffinst.models.network import DiffusionInstNetwork
from diffinst.ops import resample
from diffinst.ops.filters import apply_filters, relative_coordinates
from diffinst.ops.masks import aligned_bilinear, map_points
from diffinst.results.instances import Instances
from diffinst.structures import Candidates, Encoded

Evaluate = Literal["map", "grid"]


@pytest.fixture(autouse=True, params=["one by one", "together"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """As on a CPU, and as on a GPU."""
    monkeypatch.setattr(masks, "together", lambda device: request.param == "together")
    return str(request.param)


INSIDE, OUTPUT = (60, 90), (75, 131)  # network input (padded to 64 x 96) and original image
BOXES = [
    [10.0, 8.0, 50.5, 41.2],  # inside
    [-20.0, -7.0, 30.0, 25.0],  # over the upper left corner
    [70.0, 40.0, 130.0, 95.0],  # over the lower right corner and the padding
    [-50.0, -50.0, 200.0, 200.0],  # around everything
    [33.2, 20.1, 36.9, 22.8],  # less than a cell of the stride-4 map
]
OUTSIDE = [[-40.0, 5.0, -3.0, 20.0], [10.0, 61.0, 20.0, 80.0], [95.0, 0.0, 99.0, 60.0]]


def network_of(evaluate: Evaluate, coordinates: bool) -> DiffusionInstNetwork:
    filters = {"evaluate": evaluate, "coordinates": coordinates}
    return DiffusionInstNetwork(
        Config.from_preset("tiny").updated(model={"filters": filters}).model
    )


def random_features(inside: tuple[int, int] = INSIDE) -> Encoded:
    """Two images; the second one is used."""
    cells = [-(-side // 32) * 8 for side in inside]
    maps = torch.randn(2, 8, *cells, generator=torch.Generator().manual_seed(0))
    return Encoded.for_masks(maps, (inside, inside))


def detections_of(boxes: Tensor, network: DiffusionInstNetwork) -> Candidates:
    """Of the second image; the first one has the same."""
    generator = torch.Generator().manual_seed(1)
    count = len(boxes)
    return Candidates(
        boxes=boxes.expand(2, -1, -1),
        scores=torch.linspace(0.9, 0.1, count).expand(2, -1),
        labels=(torch.arange(count) % 3).expand(2, -1),
        filters=torch.randn(count, network.mask_head.layout.size, generator=generator).expand(
            2, -1, -1
        ),
        proposals=torch.arange(count).expand(2, -1),
    )


def drawn(
    detections: Candidates,
    network: DiffusionInstNetwork,
    output: tuple[int, int] = OUTPUT,
    features: Encoded | None = None,
    **fields: float,
) -> Instances:
    options = Options.model_validate({"nms_iou": 1.0, "max_detections": 1000, **fields})
    pipeline = Pipeline(network, Config(), options)  # nothing is suppressed
    return pipeline.instances(detections, features or random_features(), 1, output)


def clipped(box: list[float], output: tuple[int, int] = OUTPUT) -> list[float]:
    """A box of the network input in the image's pixels."""
    y, x = output[0] / INSIDE[0], output[1] / INSIDE[1]
    scaled = zip(box, (x, y, x, y), (output[1], output[0]) * 2, strict=True)
    return [min(max(value * ratio, 0.0), float(limit)) for value, ratio, limit in scaled]


def dense_map(
    detections: Candidates, i: int, features: Encoded, network: DiffusionInstNetwork
) -> Tensor:
    """The mask probabilities of one detection, full size, as the paper's code makes them."""
    maps = features.mask_features[1]
    inputs = maps.flatten(1)
    if network.config.filters.coordinates:
        points = map_points((maps.shape[1], maps.shape[2]), maps.device)
        inputs = torch.cat(
            [relative_coordinates(points, detections.boxes[1, i : i + 1])[0].T, inputs]
        )
    logits = apply_filters(inputs, detections.filters[1, i : i + 1], network.mask_head.layout)
    probs = aligned_bilinear(logits.sigmoid().view(1, 1, *maps.shape[1:]), 4)
    probs = probs[..., : INSIDE[0], : INSIDE[1]]
    full = F.interpolate(probs, size=OUTPUT, mode="bilinear", align_corners=False)[0, 0]
    x1, y1, x2, y2 = (int(value) for value in clipped(detections.boxes[1, i].tolist()))
    window = torch.zeros_like(full)
    window[y1:y2, x1:x2] = full[y1:y2, x1:x2]
    return window


def dense_grid(
    detections: Candidates, i: int, features: Encoded, network: DiffusionInstNetwork
) -> Tensor:
    """The same for the grid: its logits point by point, then every pixel of the image."""
    maps, size = features.mask_features[1:2], network.config.filters.grid_test
    x1, y1, x2, y2 = detections.boxes[1, i].tolist()
    grow_x, grow_y = 0.1 * (x2 - x1), 0.1 * (y2 - y1)  # grid_margin 0.2, half on each side
    left, top, width, height = x1 - grow_x, y1 - grow_y, 1.2 * (x2 - x1), 1.2 * (y2 - y1)
    ticks = (torch.arange(size) + 0.5) / size
    y, x = torch.meshgrid(top + ticks * height, left + ticks * width, indexing="ij")
    # Cell j of the map lies at pixel 4 j + 2; grid_sample's [-1, 1] runs from cell 0 to the last.
    places = torch.stack([(x - 2) / 4, (y - 2) / 4], -1)
    places = places / torch.tensor([maps.shape[3] - 1, maps.shape[2] - 1]) * 2 - 1
    sampled = F.grid_sample(maps, places[None], padding_mode="border", align_corners=True)
    inputs = sampled[0].flatten(1)  # (c, size * size)
    if network.config.filters.coordinates:
        points = torch.stack([x, y], -1).flatten(0, 1)
        inputs = torch.cat(
            [relative_coordinates(points, detections.boxes[1, i : i + 1])[0].T, inputs]
        )
    logits = apply_filters(inputs, detections.filters[1, i : i + 1], network.mask_head.layout)
    probs = logits.sigmoid().view(1, 1, size, size)
    # Every pixel of the image, in pixels of the network input, then in [-1, 1] of the grid.
    u = ((torch.arange(OUTPUT[1]) + 0.5) * INSIDE[1] / OUTPUT[1] - left) / width * 2 - 1
    v = ((torch.arange(OUTPUT[0]) + 0.5) * INSIDE[0] / OUTPUT[0] - top) / height * 2 - 1
    v, u = torch.meshgrid(v, u, indexing="ij")
    places = torch.stack([u, v], -1)[None]
    full = F.grid_sample(probs, places, padding_mode="border", align_corners=False)[0, 0]
    return full * ((u.abs() < 1) & (v.abs() < 1))


@pytest.mark.parametrize("coordinates", [False, True])
@pytest.mark.parametrize("evaluate", ["map", "grid"])
def test_windows_hold_what_full_size_masks_hold(evaluate: Evaluate, coordinates: bool) -> None:
    network, features = network_of(evaluate, coordinates), random_features()
    detections = detections_of(torch.tensor(BOXES), network)
    found = drawn(detections, network)
    assert len(found) == len(BOXES)
    reference = dense_map if evaluate == "map" else dense_grid
    for i, mask in enumerate(found.masks):
        probs = reference(detections, i, features, network)
        certain = (probs - 0.5).abs() > 1e-3  # rounding may tip the others
        assert certain.float().mean() > 0.95
        assert torch.equal(mask[certain], probs[certain] > 0.5), f"box {i}"
    assert 0 < int(found.masks.sum()) < found.masks.numel()


@pytest.mark.parametrize("evaluate", ["map", "grid"])
def test_boxes_are_the_images_own_and_clipped(evaluate: Evaluate) -> None:
    network = network_of(evaluate, False)
    found = drawn(detections_of(torch.tensor(BOXES + OUTSIDE), network), network)
    expected = torch.tensor([clipped(box) for box in BOXES])  # those outside are gone
    torch.testing.assert_close(found.boxes, expected)
    torch.testing.assert_close(found.scores, torch.linspace(0.9, 0.1, 8)[:5])
    assert found.labels.tolist() == [0, 1, 2, 0, 1]
    assert (found.image_size, found.masks.shape) == (OUTPUT, (5, *OUTPUT))


@pytest.mark.parametrize("evaluate", ["map", "grid"])
@pytest.mark.parametrize("boxes", [[], OUTSIDE])
def test_nothing_to_draw(evaluate: Evaluate, boxes: list[list[float]]) -> None:
    network = network_of(evaluate, True)
    found = drawn(detections_of(torch.tensor(boxes).view(-1, 4), network), network)
    assert (len(found), found.boxes.shape, found.masks.shape) == (0, (0, 4), (0, *OUTPUT))


@pytest.mark.parametrize("evaluate", ["map", "grid"])
def test_threshold_and_number_kept(evaluate: Evaluate) -> None:
    network = network_of(evaluate, False)
    detections = detections_of(torch.tensor(BOXES), network)  # scores 0.9, 0.7, 0.5, 0.3, 0.1
    assert len(drawn(detections, network, threshold=0.4)) == 3
    assert len(drawn(detections, network, threshold=float(detections.scores[1, 1]))) == 2
    assert len(drawn(detections, network, threshold=1.0)) == 0
    best = drawn(detections, network, max_detections=2)
    assert best.scores.tolist() == detections.scores[1, :2].tolist()
    everything = drawn(detections, network)
    assert everything[:2] == best


@pytest.mark.parametrize("evaluate", ["map", "grid"])
def test_mask_threshold_orders_masks(evaluate: Evaluate) -> None:
    network = network_of(evaluate, False)
    detections = detections_of(torch.tensor(BOXES), network)
    loose, strict = (drawn(detections, network, mask_threshold=t).masks for t in (0.2, 0.8))
    assert bool((loose | ~strict).all()) and int(loose.sum()) > int(strict.sum())


def test_select_drops_what_is_no_candidate() -> None:
    # Of class 0 the second overlaps the first by 0.81; the third is of another class.
    boxes = [[0.0, 0, 10, 10], [0, 0, 9, 9], [0, 0, 9, 9], [0, 0, float("nan"), 9]]
    boxes += [[0, 0, float("inf"), 9], [20, 20, 30, 30], [40, 40, 50, 50]]
    scores = [0.5, 0.9, 0.4, 0.8, 0.8, -1.0, float("nan")]  # -1: of an image that had stopped
    found = Candidates(
        boxes=torch.tensor([[[0.0] * 4] * 7, boxes]),
        scores=torch.tensor([[0.0] * 7, scores]),
        labels=torch.tensor([[0] * 7, [0, 0, 1, 0, 0, 0, 0]]),
        filters=torch.arange(14.0).view(2, 7, 1),
        proposals=torch.arange(7).expand(2, -1),
    )
    size, options = (60, 60), Options(nms_iou=0.5)
    kept = select(found, 1, size, size, options)
    torch.testing.assert_close(kept.scores, torch.tensor([0.9, 0.4]))
    assert kept.labels.tolist() == [0, 1]
    assert kept.filters[:, 0].tolist() == [8, 9]
    assert kept.proposals.tolist() == [1, 2]
    loose = select(found, 1, size, size, Options(nms_iou=0.9))
    assert loose.filters[:, 0].tolist() == [8, 7, 9]


def test_quality_reorders_and_comes_before_the_threshold() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50]]])
    found = Candidates(
        boxes=boxes,
        scores=torch.tensor([[0.9, 0.8, 0.7]]),
        labels=torch.zeros(1, 3, dtype=torch.int64),
        filters=torch.arange(3.0).view(1, 3, 1),
        proposals=torch.arange(3)[None],
    )
    rated = torch.tensor([0.1, 0.9, 0.7])

    def quality(boxes: Tensor, filters: Tensor) -> Tensor:
        return rated[filters[:, 0].long()]

    options = Options(mask_quality=1.0, threshold=0.5)
    kept = select(found, 0, (60, 60), (60, 60), options, quality)
    # sqrt(0.9 x 0.1) = 0.3 falls; sqrt(0.8 x 0.9) = 0.849; sqrt(0.7 x 0.7) = 0.7
    torch.testing.assert_close(kept.scores, torch.tensor([0.848528, 0.7]))
    assert kept.proposals.tolist() == [1, 2]
    assert kept.output_boxes[:, 0].tolist() == [20, 40]
    best = select(
        found, 0, (60, 60), (60, 60), Options(mask_quality=1.0, max_detections=1), quality
    )
    assert best.proposals.tolist() == [1]  # the first of those that more detections give
    plain = select(found, 0, (60, 60), (60, 60), Options(threshold=0.75))
    assert plain.proposals.tolist() == [0, 1]


@pytest.mark.parametrize("evaluate", ["map", "grid"])
def test_memory_follows_the_boxes_and_not_the_image(evaluate: Evaluate) -> None:
    # 300 full-size boolean masks of 4000 x 6000 would take 7.2 GB, as floats four times as much.
    network, features = network_of(evaluate, False), random_features((512, 768))
    corner = torch.rand(300, 2, generator=torch.Generator().manual_seed(2)) * 480
    detections = detections_of(torch.cat([corner, corner + 8], 1), network)
    before = peak_bytes()
    found = drawn(detections, network, (4000, 6000), features, max_detections=300)
    assert len(found) == 300
    assert sum(patch.numel() for patch in found.mask_crops.patches) < 300 * 100 * 100
    assert peak_bytes() - before < 400e6


def peak_bytes() -> int:
    """The most memory that this process ever held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@pytest.mark.parametrize("evaluate", ["map", "grid"])
def test_windows_wider_than_a_block_have_no_seams(
    evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = network_of(evaluate, False)
    found = detections_of(torch.tensor(BOXES), network)
    whole = drawn(found, network).masks
    monkeypatch.setattr(resample, "COLUMNS", 7)
    monkeypatch.setattr(resample, "PIXELS", 100)
    monkeypatch.setattr(masks, "CELLS", 1000)
    assert torch.equal(drawn(found, network).masks, whole)


@pytest.mark.parametrize("evaluate", ["map", "grid"])
def test_a_panorama_a_million_pixels_wide(evaluate: Evaluate, way: str) -> None:
    network = network_of(evaluate, False)
    boxes = torch.tensor([[0.0, 4.0, 1300.0, 36.0], [640.0, 10.0, 660.0, 30.0]])
    features = random_features((40, 1300))
    before = peak_bytes()
    result = drawn(detections_of(boxes, network), network, (9, 1_000_000), features)
    assert len(result) == 2 and result.mask_crops.windows[0, 3] == 1_000_000
    # a matrix from the map's 328 cells to all columns would be 1.3 GB
    assert peak_bytes() - before < (2**28 if way == "one by one" else 2**29)


@pytest.mark.parametrize("evaluate", ["map", "grid"])
def test_quality_is_that_of_the_window_inside_the_image(evaluate: Evaluate) -> None:
    network, features = network_of(evaluate, False), random_features((64, 64)).mask_features
    head = network.mask_head
    filters = detections_of(torch.tensor(BOXES[:1]), network).filters[0]
    inside = torch.tensor([[0.0, 0.0, 10.0, 20.0]])
    beyond = torch.tensor([[-40.0, -50.0, 60.0, 70.0]])

    def rated(maps: Tensor, boxes: Tensor) -> Tensor:
        return head.expected_iou(
            maps, filters, boxes, torch.zeros(1, dtype=torch.int64), [(20, 10)]
        )

    torch.testing.assert_close(rated(features, inside), rated(features, beyond))
    changed = features.clone()
    changed[:, :, 6:], changed[:, :, :, 4:] = 100, 100  # what lies beyond the image does not count
    torch.testing.assert_close(rated(changed, beyond), rated(features, beyond))
    assert 0 < float(rated(features, inside)) < 1
