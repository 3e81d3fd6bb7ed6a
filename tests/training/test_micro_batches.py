"""Is what the parts of a step have in common that of the whole, and does looking leave no trace?"""

from __future__ import annotations

import torch

from diffinst.config import Config
from diffinst.models.network import DiffusionInstNetwork
from diffinst.structures import ImageBatch, Targets
from diffinst.training.criterion import Criterion
from diffinst.training.loader import Process, TrainBatch
from diffinst.training.micro_batches import MicroBatches, match_alone
from diffinst.training.step import TrainingStep

CONFIG = Config.from_preset("tiny").updated(
    model={"backbone": {"norm": "train", "drop_path": 0.3}},
    criterion={"class_loss": "federated_focal", "federated_classes": 2},
)


def counting() -> TrainingStep:
    """Counts in backbone and mask branch, and skips blocks at random, as training does."""
    torch.manual_seed(0)
    network = DiffusionInstNetwork(CONFIG.model)
    criterion = Criterion(CONFIG.criterion, torch.ones(CONFIG.model.num_classes))
    return TrainingStep(network, criterion, 12).train()


def targets(boxes: list[list[float]]) -> Targets:
    """Filled boxes on an image of 64 x 64, all of class 1."""
    masks = torch.zeros(len(boxes), 64, 64, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[int(y1) : int(y2), int(x1) : int(x2)] = True
    labels = torch.ones(len(boxes), dtype=torch.int64)
    return Targets(torch.tensor(boxes, dtype=torch.float32).view(-1, 4), labels, masks)


def test_matching_beforehand_is_the_match_of_the_step() -> None:
    step = counting()
    crowd = [[4.0 * i, 2, 4.0 * i + 8, 60] for i in range(14)]  # two are omitted
    objects = [targets([[4.0, 4, 30, 40], [20, 10, 60, 60]]), targets([]), targets(crowd)]
    pixels = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 255
    draws = step.draw(objects, torch.Generator().manual_seed(4))
    batch = TrainBatch(ImageBatch(pixels, ((64, 64),) * 3), objects, draws)
    before = {name: value.clone() for name, value in step.named_buffers()}

    torch.manual_seed(5)
    match = match_alone(step, batch)
    after = dict(step.named_buffers())
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(p.grad is None for p in step.parameters())
    assert not match.owner.requires_grad
    assert all(module.training for module in step.modules())

    torch.manual_seed(5)
    predicted = step.predict(batch.images, batch.targets, batch.draws)
    assert torch.equal(match.owner, predicted.match.owner)
    assert set(match.image.tolist()) == {0, 2}
    # what was left alone beforehand does count in the step: in both parts
    moved = {n for n, v in before.items() if not torch.equal(v, dict(step.named_buffers())[n])}
    assert any("backbone" in n for n in moved) and any("mask_branch" in n for n in moved)


def test_parts_are_divided_by_the_pairs_of_all_and_see_the_classes_of_all() -> None:
    step = counting()
    objects = [targets([[4.0, 4, 30, 40], [20, 10, 60, 60]]), targets([])]
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 255
    draws = step.draw(objects, torch.Generator().manual_seed(4))
    parts = TrainBatch(ImageBatch(pixels, ((64, 64),) * 2), objects, draws).split(2)
    micro_batches = MicroBatches(step, CONFIG, 7, Process())
    assert micro_batches.matches(parts[:1]) is None  # a single part: its own match will do
    matches = micro_batches.matches(parts)
    assert matches is not None
    pairs = [match.pairs() for match in matches]
    assert pairs[0].tolist() != [0, 0] and pairs[1].tolist() == [0, 0]
    common = micro_batches.common(parts, matches)
    assert common.pairs is not None and common.federated is not None
    assert common.pairs.tolist() == (pairs[0] / 2).tolist()  # the mean of both parts
    background = CONFIG.model.num_classes
    assert all({1, background} <= set(classes.tolist()) for classes in common.federated)
    local = CONFIG.updated(criterion={"pairs": "local"})
    alone = MicroBatches(step, local, 7, Process())
    assert alone.matches(parts) is None and alone.common(parts[:1], matches[:1]).pairs is None
