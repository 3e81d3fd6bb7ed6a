"""Does the plan say what the run will do, and does finding out leave the run as it was?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from diffinst.config import Config
from diffinst.datasets.load import load_split
from diffinst.datasets.records import Annotation, ImageRecord
from diffinst.datasets.split import Split
from diffinst.training.module import DiffusionInstModule
from diffinst.training.plan import GIB, Cost, describe, duration, rehearse

Settings = Callable[..., Config]


def split_of(
    labels: Sequence[Sequence[int]], classes: Sequence[str], size: tuple[int, int] = (40, 60)
) -> Split:
    """An image for each list of labels."""
    corners = [0.0, 0.0, 9.0, 0.0, 9.0, 9.0]

    def record(number: int, on_it: Sequence[int]) -> ImageRecord:
        objects = tuple(Annotation(1, (0, 0, 9, 9), k, [corners], False, 40.5) for k in on_it)
        return ImageRecord(number, Path(f"{number}.png"), *size, objects)

    return Split(
        name="train",
        annotation_file=Path("annotations/train.json"),
        classes=tuple(classes),
        category_ids=tuple(range(1, len(classes) + 1)),
        records=[record(i, on_it) for i, on_it in enumerate(labels)],
        image_dir=Path("images"),
    )


# dog on two images, cat on three (twice on one of them), cow on none
PETS = split_of([[1, 0], [0, 0, 1], [0], []], ["cat", "dog", "cow"])
TINY = Config.from_preset("tiny").updated(train={"iterations": 30, "warmup": 5, "batch_size": 2})


def test_every_line_by_hand() -> None:
    assert describe(TINY, PETS, split_of([[0]], ["cat"])) == {
        "train": "4 images, annotations/train.json",
        "val": "1 images, annotations/train.json",
        "classes": "3: cat (3), dog (2), cow (0) (images with each)",
        # 30 x 2 / 4
        "steps": "30 iterations of 2 images (15.0 epochs), cosine schedule, warm-up 5",
        "batch": "2 = 1 process x 1 micro-batch x 2",
        "lr": "0.001",
        "model": "resnet10t, 2 stages, 30 proposals, float32",
    }


def test_processes_and_micro_batches() -> None:
    config = TINY.updated(train={"batch_size": 24, "accumulate": 2, "precision": "bf16"})
    lines = describe(config, PETS, None, processes=6)
    assert lines["batch"] == "24 = 6 processes x 2 micro-batches x 2"
    assert lines["val"] == "none" and lines["model"].endswith("bf16")
    assert "(180.0 epochs)" in lines["steps"]


def test_a_shortened_warm_up_is_said() -> None:
    given = TINY.updated(train={"iterations": 40, "warmup": 200})
    used = TINY.updated(train={"iterations": 40, "warmup": 4})
    steps = describe(used, PETS, None, given=given)["steps"]
    assert steps.endswith("warm-up 4 (train.warmup 200 would not end within them: a tenth of them)")
    assert describe(TINY, PETS, None, given=TINY)["steps"].endswith("warm-up 5")


def test_many_classes_are_cut_short() -> None:
    data = split_of([[k] * k for k in range(1, 11)], [f"c{k}" for k in range(11)])
    assert describe(TINY, data, None)["classes"] == (
        "11: c1 (1), c2 (1), c3 (1), c4 (1), c5 (1), c6 (1), c7 (1), c8 (1), and 3 more "
        "(images with each)"
    )


def test_the_scaling_rule_is_told_with_its_numbers() -> None:
    given = TINY.updated(
        train={"scaling": "linear", "reference_batch_size": 8, "iterations": 50, "milestones": [40]}
    )
    config = given.updated(train=given.train.scaled().model_dump(mode="json"))
    lines = describe(config, PETS, None, given=given)
    # a quarter of the images an iteration: a quarter of the rate, four times as many
    assert lines["lr"] == (
        "0.00025 (linear scaling: 0.001 is for 8 images, 50 iterations; here 2 images)"
    )
    assert lines["steps"].startswith("200 iterations of 2 images (100.0 epochs)")
    assert lines["steps"].endswith("warm-up 20")
    assert describe(TINY, PETS, None, given=TINY)["lr"] == "0.001"


@pytest.mark.parametrize(
    ("augment", "small"),
    [
        ({"crop_range": [64, 96], "zoom": [1, 1.5]}, 4),  # 40 x 1.5 is 60
        ({"crop_range": [60, 96], "zoom": [1, 1.5]}, 0),
        ({"crop_range": [64, 96], "crop_short_sides": [80]}, 0),  # made large enough
        ({"crop_range": [64, 96], "crop_probability": 0.0}, 0),
    ],
)
def test_images_too_small_for_the_crop(augment: dict[str, object], small: int) -> None:
    crop = {"crop_probability": 1.0, "crop_short_sides": [], "short_sides": [], **augment}
    lines = describe(TINY.updated(augment=crop), PETS, None)
    said = "4 of 4 images are smaller than the crop of 64 even at zoom 1.5: they are used whole"
    assert lines.get("crop") == (said if small else None)


@pytest.mark.parametrize(
    ("schedule", "milestones", "beyond"),
    [
        ("multistep", [20, 29], None),
        ("multistep", [20, 30, 40], "30, 40"),  # the last of 30 iterations is number 29
        ("cosine", [40], None),
    ],
)
def test_milestones_that_never_come(
    schedule: str, milestones: list[int], beyond: str | None
) -> None:
    config = TINY.updated(train={"schedule": schedule, "milestones": milestones})
    said = describe(config, PETS, None).get("milestones")
    assert (said is None) == (beyond is None)
    assert said is None or said.startswith(f"{beyond}: beyond the last iteration, the rate does")


def test_what_it_costs() -> None:
    lines = describe(TINY, PETS, None, cost=Cost(8.0, 1.26 * GIB, "4 CPU threads"))
    # 30 x 8 s
    assert lines["time"] == "about 4 min on 4 CPU threads (8.00 s an iteration, without evaluation)"
    assert lines["memory"] == "about 1.3 GiB a process"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (89.4, "89 s"),
        (90, "2 min"),
        (600, "10 min"),
        (5399, "90 min"),
        (5400, "1.5 h"),
        (47.94 * 3600, "47.9 h"),
        (48 * 3600, "2.0 days"),
        (30 * 86400, "30.0 days"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("freeze", [(), ("backbone",)])
def test_a_rehearsal_leaves_everything_as_it_was(
    freeze: tuple[str, ...], shapes: Path, quick: Settings
) -> None:
    config = quick(batch_size=4, accumulate=2, freeze=freeze).updated(
        model={"backbone": {"norm": "train", "drop_path": 0.3}}
    )
    module = DiffusionInstModule(config, pretrained=False)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    buffers = {name: value.clone() for name, value in module.named_buffers()}
    random = torch.get_rng_state()
    cost = rehearse(module, load_split(shapes, "train"), config, processes=1)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(torch.equal(value, buffers[name]) for name, value in module.named_buffers())
    assert all(p.grad is None for p in module.parameters())
    assert {p.device.type for p in module.parameters()} == {"cpu"}
    assert module.iteration == 0 and module.network.decoder.training
    assert cost.seconds > 0 and cost.peak_bytes > 0 and cost.device
    # it did compute: AdamW's numbers and the images take memory beside the weights
    learning = sum(4 * p.numel() for p in module.parameters() if p.requires_grad)
    assert cost.peak_bytes > 2 * learning
