"""Does a step follow from its draws alone, and can the network learn an image by heart?"""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor

from diffinst.config import Config
from diffinst.datasets.load import load_split
from diffinst.datasets.split import Split
from diffinst.datasets.synthetic import make_shapes
from diffinst.diffusion.signal import Corruption
from diffinst.inference.predictor import DiffusionInst
from diffinst.io.images import read_image
from diffinst.models.network import DiffusionInstNetwork
from diffinst.structures import ImageBatch, Targets
from diffinst.training.criterion import Criterion
from diffinst.training.loader import collate, transform_targets
from diffinst.training.step import TrainingStep

CONFIG = Config.from_preset("tiny")
SIDE = 96  # of the image that is learnt by heart


def training_step(proposals: int = 12, config: Config = CONFIG) -> TrainingStep:
    torch.manual_seed(0)
    network = DiffusionInstNetwork(config.model)
    return TrainingStep(network, Criterion(config.criterion), proposals)


def targets(boxes: list[list[float]], image_id: int = 0) -> Targets:
    """Filled boxes on an image of 64 x 64, all of class 1."""
    masks = torch.zeros(len(boxes), 64, 64, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[int(y1) : int(y2), int(x1) : int(x2)] = True
    labels = torch.ones(len(boxes), dtype=torch.int64)
    return Targets(torch.tensor(boxes, dtype=torch.float32).view(-1, 4), labels, masks, image_id)


def images(count: int) -> ImageBatch:
    pixels = torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 255
    return ImageBatch(pixels, ((64, 64),) * count)


TWO = [targets([[4.0, 4, 30, 40], [20, 10, 60, 60]]), targets([])]


@pytest.fixture(scope="module")
def tiny() -> TrainingStep:
    return training_step()


def test_the_same_draws_give_the_same_losses(tiny: TrainingStep) -> None:
    draws = tiny.draw(TWO, torch.Generator().manual_seed(1))
    first, again = (tiny(images(2), TWO, draws) for _ in range(2))
    assert first.losses.keys() == again.losses.keys()
    assert all(torch.equal(first.losses[k], again.losses[k]) for k in first.losses)
    seeded = tiny(images(2), TWO, generator=torch.Generator().manual_seed(1))
    assert torch.equal(seeded.losses["loss"], first.losses["loss"])
    other = tiny(images(2), TWO, generator=torch.Generator().manual_seed(2))
    assert not torch.equal(other.losses["loss"], first.losses["loss"])


def noisy_boxes(step: TrainingStep, draws: list[Corruption]) -> tuple[Tensor, Tensor]:
    batch = images(2)
    start = step.noisy_boxes(step.network.pyramid(batch), batch.scale(), TWO, draws)
    assert start.held is None
    return start.boxes, start.times


def test_the_first_noisy_boxes_are_the_objects_at_time_zero(tiny: TrainingStep) -> None:
    noise = torch.zeros(12, 4)
    draws = [Corruption(0, noise, noise, torch.arange(len(t))) for t in TWO]
    start, times = noisy_boxes(tiny, draws)
    assert start.shape == (2, 12, 4) and start.dtype == torch.float32 and times.tolist() == [0, 0]
    torch.testing.assert_close(start[0, :2], TWO[0].boxes, rtol=0, atol=0.05)
    # an image without objects starts with one box over all of it; placeholders of 0 are half of it
    torch.testing.assert_close(start[1, 0], torch.tensor([0.0, 0, 64, 64]), rtol=0, atol=0.05)
    torch.testing.assert_close(start[1, 1], torch.tensor([16.0, 16, 48, 48]), rtol=0, atol=0.05)


def test_the_last_time_is_noise_only(tiny: TrainingStep) -> None:
    noise = torch.full((12, 4), 0.5)
    draws = [Corruption(999, noise, noise, torch.arange(len(t))) for t in TWO]
    start, _ = noisy_boxes(tiny, draws)
    # 0.5 of [-2, 2] is 0.625 of the image for centre and size
    expected = torch.tensor([20.0, 20, 60, 60]).expand(2, 12, 4)
    torch.testing.assert_close(start, expected, rtol=0, atol=0.05)


def test_more_objects_than_proposals(tiny: TrainingStep, caplog: pytest.LogCaptureFixture) -> None:
    crowd = targets([[4.0 * i, 2, 4.0 * i + 8, 60] for i in range(12)], image_id=77)
    step = TrainingStep(tiny.network, tiny.criterion, proposals=3)
    draws = step.draw([crowd], torch.Generator().manual_seed(3))
    with caplog.at_level(logging.WARNING):
        output = step(images(1), [crowd], draws)
    assert "image 77 has 12 objects but only 3 proposals" in caplog.text
    assert "train.proposals" in caplog.text
    assert output.start.shape == (1, 3, 4)
    assert sorted(output.match.target[output.match.stage == 1].tolist()) == [0, 1, 2]
    output.losses["loss"].backward()
    assert output.losses["loss"].isfinite()
    with caplog.at_level(logging.WARNING):
        step.limited([crowd], draws)  # as a step of several micro-batches does, thrice
    assert caplog.text.count("image 77") == 1
    # the same objects for noise and matcher: at time 0 the boxes are those that were kept
    zero = torch.zeros(3, 4)
    calm = [Corruption(0, zero, zero, draws[0].order)]
    kept = crowd.boxes[draws[0].order[:3].sort().values]
    torch.testing.assert_close(step(images(1), [crowd], calm).start[0], kept, rtol=0, atol=0.1)


def test_no_warning_where_every_object_has_a_proposal(
    tiny: TrainingStep, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        tiny(images(2), TWO)
    assert not caplog.text


def test_the_output_carries_what_was_computed(tiny: TrainingStep) -> None:
    output = tiny(images(2), TWO)
    assert output.start.shape == (2, 12, 4) and len(output.stages) == 2
    assert output.encoded.mask_features.shape == (2, 8, 16, 16)
    assert set(output.match.image.tolist()) == {0}  # the other image has no objects
    again = tiny(images(2), TWO, match=output.match)
    assert torch.equal(again.match.owner, output.match.owner)


def learn(split: Split, iterations: int) -> tuple[list[float], DiffusionInst]:
    """Losses of training on the first image, and the model."""
    config = CONFIG.updated(
        model={
            "num_classes": len(split.classes),
            "backbone": {"norm": "train"},  # from scratch
            "decoder": {"zero_init_deltas": True},
        },
        preprocess={"short_side": SIDE},
    )
    step = training_step(20, config).train()
    record = split.records[0]
    pixels = torch.from_numpy(read_image(record.path)).permute(2, 0, 1)
    goal = transform_targets(record, (SIDE, SIDE), [])
    optimizer = torch.optim.AdamW(step.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations, 5e-5)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(iterations):
        batch = collate([(pixels, goal, draw) for draw in step.draw([goal, goal], generator)])
        loss: Tensor = step(batch.images, batch.targets, batch.draws).losses["loss"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(step.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses, DiffusionInst(step.network, config)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Split:
    folder = tmp_path_factory.mktemp("shapes")
    make_shapes(folder, train=1, val=0, size=(SIDE, SIDE), objects=(2, 2), seed=3)
    return load_split(folder, "train")


def test_one_image_is_learnt_by_heart(shapes: Split) -> None:
    losses, model = learn(shapes, 200)
    assert sum(losses[-10:]) < 0.4 * sum(losses[:10])
    record = shapes.records[0]
    found = model.predict(record.path, steps=4, proposals=50).above(0.2)
    goal = transform_targets(record, (SIDE, SIDE), [])
    for mask, label in zip(goal.masks, goal.labels, strict=True):
        overlaps = [
            float((other & mask).sum() / (other | mask).sum())
            for other, own in zip(torch.as_tensor(found.masks), found.labels, strict=True)
            if int(own) == int(label)
        ]
        assert max(overlaps, default=0) > 0.7
