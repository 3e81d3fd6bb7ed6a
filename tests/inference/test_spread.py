"""Is each object of several runs counted once, and are the runs those that single ones would be?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from diffinst.config import ConfigError, Options
from diffinst.diffusion.start import Start
from diffinst.inference import runner
from diffinst.inference.predictor import DiffusionInst
from diffinst.inference.spread import joined, runs_of
from diffinst.results.crops import CroppedMasks
from diffinst.results.instances import Instances

SIZE = (10, 40)
Found = tuple[int, float, int]  # column of a 4 x 4 square, score, label


def run(*found: Found) -> Instances:
    """One run: squares in rows 2 to 5."""
    masks = torch.zeros(len(found), *SIZE, dtype=torch.bool)
    for mask, (x, _, _) in zip(masks, found, strict=True):
        mask[2:6, x : x + 4] = True
    return Instances(
        boxes=torch.tensor([[x, 2.0, x + 4, 6.0] for x, _, _ in found]).view(-1, 4),
        scores=torch.tensor([score for _, score, _ in found], dtype=torch.float32),
        labels=torch.tensor([label for _, _, label in found], dtype=torch.int64),
        mask_crops=CroppedMasks.from_dense(masks),
        image_size=SIZE,
        class_names=("cat", "dog"),
    )


def rated(found: Instances) -> list[tuple[float, ...]]:
    """Column, score, stability, spread and agreement of each."""
    assert found.stability is not None
    assert found.score_spread is not None
    assert found.mask_agreement is not None
    columns = (found.boxes[:, 0], found.scores, *(found.optional().values()))
    return [tuple(round(v, 4) for v in row) for row in torch.stack(columns, 1).tolist()]


def test_each_object_comes_once_with_its_numbers() -> None:
    runs = [
        run((0, 0.9, 0), (20, 0.6, 0)),
        run((1, 0.8, 0)),  # 12 of 20 pixels in common: IoU 0.6
        run((30, 0.65, 0), (0, 0.7, 0)),
    ]
    assert rated(joined(runs, Options())) == [
        (0, 0.9, 1.0, 0.0816, 0.8),  # std of 0.9, 0.8, 0.7; mean of 0.6 and 1
        (30, 0.65, 0.3333, 0.0, 0.0),
        (20, 0.6, 0.3333, 0.0, 0.0),
    ]


def test_what_overlaps_less_than_half_is_another_object() -> None:
    runs = [run((0, 0.9, 0)), run((2, 0.8, 0))]  # 8 of 24 pixels
    assert [row[2] for row in rated(joined(runs, Options()))] == [0.5, 0.5]


def test_what_one_run_alone_would_not_have_kept_twice_comes_once() -> None:
    """Of two boxes that overlap by more than `nms_iou` the better one stays, as in one run."""
    runs = [run((0, 0.9, 0)), run((2, 0.8, 0))]
    assert [row[0] for row in rated(joined(runs, Options(nms_iou=0.3)))] == [0]


def test_classes_do_not_mix() -> None:
    runs = [run((0, 0.9, 0)), run((0, 0.8, 1))]
    assert joined(runs, Options()).labels.tolist() == [0, 1]


def test_an_object_takes_one_detection_of_each_run_the_nearest() -> None:
    runs = [run((4, 0.9, 0)), run((3, 0.8, 0), (4, 0.5, 0))]
    both = joined(runs, Options(nms_iou=1.0))
    assert rated(both)[0] == (4, 0.9, 1.0, 0.2, 1.0)  # not the one of 0.8
    assert rated(both)[1][:3] == (3, 0.8, 0.5)


def test_the_best_detection_stands_for_an_object_whatever_the_order_of_runs() -> None:
    runs = [run((0, 0.7, 0)), run((0, 0.9, 0)), run((1, 0.8, 0))]
    assert joined(runs, Options()) == joined(runs[::-1], Options())
    assert joined(runs, Options()).scores.tolist() == pytest.approx([0.9])


def test_nothing_found_is_normal() -> None:
    none = joined([run(), run()], Options())
    assert len(none) == 0 and none.stability is not None and len(none.stability) == 0
    assert rated(joined([run(), run((0, 0.9, 0))], Options()))[0][2] == 0.5


def test_no_more_are_kept_than_asked_for() -> None:
    runs = [run((0, 0.7, 0), (10, 0.9, 0)), run((20, 0.8, 0))]
    assert joined(runs, Options(max_detections=2)).scores.tolist() == pytest.approx([0.9, 0.8])


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (3, 48, 64), np.uint8))


LOW: dict[str, Any] = {"threshold": 0.0, "proposals": 12, "steps": 2}


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of runs adds up in another order; how far that matters has a test of its own."""
    monkeypatch.setattr(runner, "BOXES_AT_ONCE", 1)


@pytest.mark.usefixtures("one_by_one")
def test_it_is_what_single_runs_find(tiny: DiffusionInst, pixels: torch.Tensor) -> None:
    image = tiny.encode(pixels)
    single = [image.predict(seed=seed, **LOW) for seed in (5, 6)]
    options = Options.of(tiny.config, **LOW)
    both = image.predict(seed=5, noises=2, **LOW)
    assert both == joined(single, options)
    assert both == tiny.predict(pixels, seed=5, noises=2, **LOW)
    assert both.stability is not None and {0.5, 1.0} >= set(both.stability.tolist())
    known = {tuple(box) for one in single for box in one.boxes.tolist()}
    assert {tuple(box) for box in both.boxes.tolist()} <= known


def test_one_noise_is_a_plain_prediction(tiny: DiffusionInst, pixels: torch.Tensor) -> None:
    plain = tiny.predict(pixels, noises=1, **LOW)
    assert plain == tiny.predict(pixels, **LOW)
    assert plain.stability is None and plain.score_spread is None


@pytest.mark.parametrize("kind", ["ddim", "search"])
def test_a_batch_of_runs_is_runs_one_by_one(
    tiny: DiffusionInst, pixels: torch.Tensor, kind: str
) -> None:
    image = tiny.encode(pixels)
    options = Options.of(tiny.config, kind=kind, **LOW)  # type: ignore[arg-type]
    pipeline = image.runner.pipeline(options)
    noise = image.runner.noise([0, 1, 2], options)
    with torch.inference_mode():
        batches = (
            runs_of(pipeline, image.encoded, noise, image.size, at_once=count)
            for count in (1, 2, 3)
        )
        first, *others = ([one for some in parts for one in some] for parts in batches)
    for runs in others:
        for one, same in zip(runs, first, strict=True):
            assert torch.allclose(one.boxes, same.boxes, atol=1e-3)
            assert torch.allclose(one.scores, same.scores, atol=1e-5)


@pytest.mark.usefixtures("one_by_one")
def test_lists_and_folders_are_images_one_by_one(tiny: DiffusionInst, pixels: torch.Tensor) -> None:
    other = pixels.flip(2)
    found = tiny.predict([pixels, other], noises=2, **LOW)
    assert found == [tiny.predict(image, noises=2, **LOW) for image in (pixels, other)]


@pytest.mark.usefixtures("one_by_one")
def test_every_run_begins_with_the_start(tiny: DiffusionInst, pixels: torch.Tensor) -> None:
    start = Start([[10, 10, 30, 30]], time=400)
    image = tiny.encode(pixels)
    single = [image.predict(start=start, seed=seed, **LOW) for seed in (0, 1)]
    both = image.predict(start=start, noises=2, **LOW)
    assert both == joined(single, Options.of(tiny.config, **LOW))


@pytest.mark.usefixtures("one_by_one")
def test_runs_come_one_after_another_and_end_with_the_prediction(
    tiny: DiffusionInst, pixels: torch.Tensor
) -> None:
    image = tiny.encode(pixels)
    first, second, last = image.runs(noises=3, **LOW)
    assert first.stability is not None and set(first.stability.tolist()) == {1.0}
    assert second == image.predict(noises=2, **LOW)
    assert last == image.predict(noises=3, **LOW)


@pytest.mark.parametrize("noises", [0, -1, 1001, 2.5, True])
def test_how_many_noises_is_checked(tiny: DiffusionInst, noises: Any) -> None:
    with pytest.raises(ConfigError, match="noises: "):
        tiny.predict(torch.zeros(3, 48, 64, dtype=torch.uint8), noises=noises)


def test_what_shows_one_run_refuses_several(tiny: DiffusionInst, pixels: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match="noises is 2, but steps are shown of one run; omit"):
        tiny.stream(pixels, noises=2)
    with pytest.raises(ConfigError, match="noises is 2, but steps are shown of one run; omit"):
        tiny.trace(pixels, noises=2)


def test_a_small_number_kept_does_not_look_like_doubt(
    tiny: DiffusionInst, pixels: torch.Tensor
) -> None:
    many = tiny.predict(pixels, noises=3, max_detections=100, **LOW)
    few = tiny.predict(pixels, noises=3, max_detections=2, **LOW)
    assert len(many) > 2
    assert few == many[:2]  # the same numbers, fewer of them
