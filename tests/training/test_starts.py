"""What each kind of training image starts from, and that the paper's is untouched."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from diffinst.config import Config, ConfigError, StartsConfig
from diffinst.diffusion.near import boxes_near
from diffinst.diffusion.signal import from_signal
from diffinst.models.network import DiffusionInstNetwork
from diffinst.structures import ImageBatch, Targets
from diffinst.training.criterion import Criterion
from diffinst.training.matcher import FREE
from diffinst.training.starts import MOST_FOUND, Starts
from diffinst.training.step import TrainingStep

CONFIG = Config.from_preset("tiny")
PROPOSALS = 12
IMAGES = ImageBatch(
    torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 255, ((64, 64),) * 2
)


def objects() -> list[Targets]:
    boxes = torch.tensor([[4.0, 4, 30, 40], [32, 10, 60, 60]])
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.int().tolist(), strict=True):
        mask[y0:y1, x0:x1] = True
    none = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), masks[:0])
    return [Targets(boxes, torch.zeros(2, dtype=torch.int64), masks), none]


@pytest.fixture(scope="module")
def network() -> DiffusionInstNetwork:
    torch.manual_seed(0)
    return DiffusionInstNetwork(CONFIG.model)


def step_of(network: DiffusionInstNetwork, **kinds: float) -> TrainingStep:
    criterion = Criterion(CONFIG.criterion)
    return TrainingStep(network, criterion, PROPOSALS, StartsConfig.model_validate(kinds))


def started(step: TrainingStep, seed: int = 0) -> tuple[Starts, Tensor]:
    """The starts, and the boxes that the noise alone would be."""
    targets = objects()
    draws = step.draw(targets, torch.Generator().manual_seed(seed))
    pyramid, scale = step.network.pyramid(IMAGES), IMAGES.scale()
    noise = torch.stack([d.noise for d in draws])
    found = step.noisy_boxes(pyramid, scale, targets, draws)
    return found, from_signal(noise, scale, step.network.config.diffusion)


def test_prior_is_noise_at_the_last_time(network: DiffusionInstNetwork) -> None:
    start, noise = started(step_of(network, prior=1.0))
    torch.testing.assert_close(start.boxes, noise)
    assert (start.times == 999).all() and start.times.shape == (2, PROPOSALS)
    assert start.held is not None and (start.held == FREE).all()


def test_near_boxes_come_first_and_are_held(network: DiffusionInstNetwork) -> None:
    step = step_of(network, near=1.0)
    targets = objects()
    for seed in range(20):
        draws = step.draw(targets, torch.Generator().manual_seed(seed))
        assert draws[0].start is not None
        which = torch.nonzero(draws[0].start.has_box(2)).flatten()
        start, noise = started(step, seed)
        count = len(which)
        near = boxes_near(targets[0].boxes, targets[0].masks, draws[0].start)[which]
        torch.testing.assert_close(start.boxes[0, :count], near)
        torch.testing.assert_close(start.boxes[0, count:], noise[0, count:])
        assert start.held is not None
        assert start.held[0].tolist() == which.tolist() + [FREE] * (PROPOSALS - count)
        assert (start.times[0, :count] <= 200).all() and (start.times[0, count:] == 999).all()
        assert (start.held[1] == FREE).all() and (start.times[1] == 999).all()  # no objects
        output = step(IMAGES, targets, draws)
        assert torch.isfinite(output.losses["loss"])
        for stage in range(len(output.stages)):
            assert output.match.owner[stage, 0, :count].tolist() == which.tolist()


def test_own_goes_on_with_what_the_first_step_found(network: DiffusionInstNetwork) -> None:
    step = step_of(network, own=1.0)
    everything = StartsConfig(own=1.0, own_scores=(0.0, 0.0))
    step = TrainingStep(network, step.criterion, PROPOSALS, everything)
    start, noise = started(step)
    pyramid = network.pyramid(IMAGES)
    with torch.no_grad():
        last = network.decoder(pyramid, noise, torch.full((2, PROPOSALS), 999))[-1]
    for i in range(2):
        found = int((start.times[i] == 0).sum())
        assert 1 <= found <= MOST_FOUND * PROPOSALS
        assert (start.times[i, :found] == 0).all() and (start.times[i, found:] == 999).all()
        best = last.boxes[i, last.logits[i].amax(-1).argmax()]
        torch.testing.assert_close(start.boxes[i, 0], best)
        torch.testing.assert_close(start.boxes[i, found:], noise[i, found:])
    nothing = StartsConfig(own=1.0, own_scores=(1.0, 1.0))
    start, noise = started(TrainingStep(network, step.criterion, PROPOSALS, nothing))
    torch.testing.assert_close(start.boxes, noise)


def test_gradients_reach_every_weight_under_autocast(network: DiffusionInstNetwork) -> None:
    step = step_of(network, own=1.0)
    step = TrainingStep(network, step.criterion, PROPOSALS, StartsConfig(own=1.0))
    network.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        output = step(IMAGES, objects(), generator=torch.Generator().manual_seed(0))
    output.losses["loss"].backward()
    learning = [p for p in network.decoder.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in learning)


def test_images_of_the_paper_are_untouched(network: DiffusionInstNetwork) -> None:
    plain, other = step_of(network), step_of(network, prior=1.0)
    targets, generator = objects(), torch.Generator().manual_seed(5)
    draws = plain.draw(targets, generator)
    assert all(d.start is None for d in draws)
    pyramid, scale = network.pyramid(IMAGES), IMAGES.scale()
    paper = plain.noisy_boxes(pyramid, scale, targets, draws)
    assert paper.times.shape == (2,) and paper.held is None
    prior = other.draw(targets, torch.Generator().manual_seed(5))
    mixed = [draws[0], replace(draws[1], start=prior[1].start)]
    both = other.noisy_boxes(pyramid, scale, targets, mixed)
    assert torch.equal(both.boxes[0], paper.boxes[0])
    assert (both.times[0] == paper.times[0]).all() and (both.times[1] == 999).all()


def test_more_objects_than_proposals(network: DiffusionInstNetwork) -> None:
    boxes = torch.tensor([[2.0 * i, 2, 2.0 * i + 6, 60] for i in range(20)])
    masks = torch.ones(20, 64, 64, dtype=torch.bool)
    crowd = Targets(boxes, torch.zeros(20, dtype=torch.int64), masks)
    step = TrainingStep(network, Criterion(CONFIG.criterion), 6, StartsConfig(near=1.0))
    image = ImageBatch(IMAGES.pixels[:1], ((64, 64),))
    for seed in range(5):
        output = step(image, [crowd], generator=torch.Generator().manual_seed(seed))
        assert torch.isfinite(output.losses["loss"]) and output.start.shape == (1, 6, 4)


def test_fractions_above_one_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"prior 0.7 \+ own 0.4 .* is 1.1; .* 1 at most"):
        Config().updated(train={"starts": {"prior": 0.7, "own": 0.4}})
