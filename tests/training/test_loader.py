"""Does item k of the stream depend on nothing but the seed and k, and does it lose no image?"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import SequentialSampler

from diffinst.config import Config, Reading
from diffinst.datasets.load import load_split
from diffinst.datasets.segmentation import DatasetError
from diffinst.datasets.split import Split
from diffinst.datasets.synthetic import make_shapes
from diffinst.io.images import read_image
from diffinst.training.loader import (
    Process,
    StreamSampler,
    TrainBatch,
    TrainStream,
    collate,
    images_each,
    load_augmented,
    shuffled_repeats,
    train_loader,
    transform_targets,
)
from diffinst.training.repeat import repeat_factors
from diffinst.training.splits import without_augmentation
from diffinst.training.transforms import Crop, Flip, Resize, Step

IMAGES = 5
CONFIG = Config.from_preset("tiny").updated(
    augment={"short_sides": [48, 64], "vertical_flip": 0.5, "colour": 0.2},
    train={"batch_size": 2, "iterations": 4, "proposals": 7},
)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Five images of 40 x 56, some without objects."""
    folder = tmp_path_factory.mktemp("shapes")
    make_shapes(folder, train=IMAGES, val=0, size=(40, 56), objects=(0, 2), seed=1)
    return load_split(folder, "train")


def same(a: TrainBatch, b: TrainBatch) -> bool:
    return (
        torch.equal(a.images.pixels, b.images.pixels)
        and a.images.sizes == b.images.sizes
        and all(
            torch.equal(x.boxes, y.boxes)
            and torch.equal(x.labels, y.labels)
            and torch.equal(x.masks, y.masks)
            and x.image_id == y.image_id
            for x, y in zip(a.targets, b.targets, strict=True)
        )
        and all(
            x.t == y.t and torch.equal(x.noise, y.noise) and torch.equal(x.order, y.order)
            for x, y in zip(a.draws, b.draws, strict=True)
        )
    )


def test_an_item_follows_from_seed_and_position(split: Split) -> None:
    first, again = TrainStream(split, CONFIG), TrainStream(split, CONFIG)
    backwards = {k: again[k] for k in reversed(range(8))}
    assert all(same(collate([first[k]]), collate([backwards[k]])) for k in range(8))
    other = TrainStream(split, CONFIG.updated(train={"seed": 1}))
    assert not any(same(collate([first[k]]), collate([other[k]])) for k in range(3))


def test_the_global_generators_play_no_part(split: Split) -> None:
    torch.manual_seed(1)
    first = TrainStream(split, CONFIG)[3]
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert same(collate([first]), collate([TrainStream(split, CONFIG)[3]]))
    assert torch.equal(state, torch.get_rng_state())


def test_an_epoch_visits_every_image_once_in_a_new_order(split: Split) -> None:
    stream = TrainStream(split, CONFIG)
    ids = [stream[k][1].image_id for k in range(4 * IMAGES)]
    epochs = [ids[i : i + IMAGES] for i in range(0, len(ids), IMAGES)]
    everyone = sorted(record.id for record in split.records)
    assert all(sorted(epoch) == everyone for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_an_image_comes_back_with_other_geometry_and_noise(split: Split) -> None:
    stream = TrainStream(split, CONFIG)
    visits = [k for k in range(3 * IMAGES) if stream[k][1].image_id == split.records[0].id]
    times = {stream[k][2].t for k in visits}
    assert len(visits) == 3 and len(times) == 3


def test_items_are_what_a_step_needs(split: Split) -> None:
    stream = TrainStream(split, CONFIG)
    for k in range(IMAGES):
        pixels, targets, draw = stream[k]
        height, width = pixels.shape[1:]
        assert pixels.dtype == torch.uint8 and pixels.is_contiguous()
        assert min(height, width) in (48, 64)
        assert targets.masks.shape == (len(targets), height, width)
        assert targets.boxes.shape == (len(targets), 4) and targets.labels.dtype == torch.int64
        assert draw.noise.shape == (7, 4) and len(draw.order) == len(targets)
    counts = {stream[k][1].image_id: len(stream[k][1]) for k in range(IMAGES)}
    assert 0 in counts.values()  # images without objects are trained on


def batches(split: Split, **train: object) -> list[TrainBatch]:
    return list(train_loader(split, CONFIG.updated(train=train)))


def test_workers_do_not_change_the_batches(split: Split) -> None:
    alone, shared = batches(split), batches(split, workers=2)
    assert len(alone) == len(shared) == 4
    assert all(same(a, b) for a, b in zip(alone, shared, strict=True))


def test_batch_size_does_not_change_the_stream(split: Split) -> None:
    pairs, singles = batches(split), batches(split, batch_size=1, iterations=8)
    ids = [t.image_id for batch in pairs for t in batch.targets]
    assert ids == [t.image_id for batch in singles for t in batch.targets]
    noises = [d.noise for batch in pairs for d in batch.draws]
    for noise, single in zip(noises, singles, strict=True):
        assert torch.equal(noise, single.draws[0].noise)


def test_a_later_start_continues_the_stream(split: Split) -> None:
    whole = batches(split)
    rest = list(train_loader(split, CONFIG, start=3 * 2))
    assert len(rest) == 1 and same(rest[0], whole[3])


def test_the_loader_counts_the_whole_run_wherever_it_starts(split: Split) -> None:
    # the trainer goes on counting where it stopped, and compares with this
    assert [len(train_loader(split, CONFIG, start=s)) for s in (0, 2, 8)] == [4, 4, 4]


def test_sampler_positions() -> None:
    assert list(StreamSampler(6)) == list(SequentialSampler(range(6)))
    assert list(StreamSampler(6, 4)) == [4, 5] and list(StreamSampler(6, 6)) == []
    assert len(StreamSampler(6, 4)) == 6


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("start", [0, 4, 12, 16])
def test_processes_share_every_batch(world: int, start: int) -> None:
    samplers = [StreamSampler(16, start, 4, Process(rank, world)) for rank in range(world)]
    size = 4 // world
    shares = [list(sampler) for sampler in samplers]
    assert [len(share) for share in shares] == [(16 - start) // world] * world
    for i, step in enumerate(range(start, 16, 4)):  # in the order of the ranks, each once
        together = [k for share in shares for k in share[size * i : size * (i + 1)]]
        assert together == list(range(step, step + 4))
    assert [len(sampler) for sampler in samplers] == [16 // world] * world


def test_shares_of_processes_by_hand() -> None:
    assert list(StreamSampler(12, 4, 4, Process(0, 2))) == [4, 5, 8, 9]
    assert list(StreamSampler(12, 4, 4, Process(1, 2))) == [6, 7, 10, 11]


def test_processes_see_what_one_would_see(split: Split) -> None:
    config = CONFIG.updated(augment={"short_sides": [48]})
    whole = list(train_loader(split, config))
    halves = [train_loader(split, config, process=Process(rank, 2)) for rank in range(2)]
    for batch, *shared in zip(whole, *halves, strict=True):
        assert [len(share) for share in shared] == [1, 1]
        assert all(same(a, b) for a, b in zip(batch.split(2), shared, strict=True))


def test_a_batch_is_shared_evenly_or_refused() -> None:
    train = CONFIG.train.model_copy(update={"batch_size": 12, "accumulate": 2})
    assert [images_each(train, processes) for processes in (1, 2, 3, 6)] == [12, 6, 4, 2]
    for processes in (4, 5, 12):
        wrong = rf"train\.batch_size 12 cannot .* {processes} processes x 2 micro-batches; use a "
        with pytest.raises(ValueError, match=wrong + f"multiple of {2 * processes}"):
            images_each(train, processes)


def test_a_share_that_is_not_even_is_refused(split: Split) -> None:
    with pytest.raises(ValueError, match="batch_size 2 cannot be split evenly over 4 processes"):
        train_loader(split, CONFIG, process=Process(1, 4))


def test_micro_batches_are_the_batch_cut_up(split: Split) -> None:
    stream = TrainStream(split, CONFIG)
    batch = collate([stream[k] for k in range(4)])
    sizes = {tuple(pixels.shape[1:]) for pixels, _, _ in (stream[k] for k in range(4))}
    assert len(sizes) > 1  # so that padding the parts anew would show
    assert [same(part, batch) for part in batch.split(1)] == [True]
    for parts in (2, 4):
        pieces = batch.split(parts)
        assert [len(piece) for piece in pieces] == [4 // parts] * parts
        assert torch.equal(torch.cat([p.images.pixels for p in pieces]), batch.images.pixels)
        assert sum((p.images.sizes for p in pieces), ()) == batch.images.sizes
        assert [t for p in pieces for t in p.targets] == batch.targets
        assert [d for p in pieces for d in p.draws] == batch.draws


FACTORS = np.array([1.0, 1.0, 2.5, 1.5])


def counts(factors: np.ndarray, length: int, seed: int) -> list[int]:
    """How often each index appears."""
    indices = shuffled_repeats(factors, length, np.random.default_rng(seed))
    assert len(indices) == length
    return [int(n) for n in np.bincount(indices, minlength=len(factors))]


def test_repeats_by_hand() -> None:
    drawn = np.array([counts(FACTORS, 6, seed) for seed in range(400)])
    # the sum is 6: ones are there once, the others as often as below or above
    assert drawn.min(0).tolist() == [1, 1, 2, 1] and drawn.max(0).tolist() == [1, 1, 3, 2]
    assert np.allclose(drawn.mean(0), FACTORS, atol=4 * 0.5 / 400**0.5)
    orders = {tuple(shuffled_repeats(FACTORS, 6, np.random.default_rng(s))) for s in range(20)}
    assert len(orders) > 15


@given(
    st.lists(st.floats(1, 20), min_size=1, max_size=30).map(np.array),
    st.integers(0, 2**32),
)
def test_repeats_are_as_many_as_told(factors: np.ndarray, seed: int) -> None:
    length = math.ceil(float(factors.sum()))
    wanted = factors * length / factors.sum()
    found = np.array(counts(factors, length, seed))
    assert (found >= np.floor(wanted - 1e-9)).all() and found.min() >= 1
    assert (found <= np.ceil(wanted + 1e-9)).all()


@pytest.mark.parametrize("n", [1, 7])
def test_nothing_to_repeat_is_the_plain_order(n: int) -> None:
    order = shuffled_repeats(np.ones(n), n, np.random.default_rng(3))
    assert order.tolist() == np.random.default_rng(3).permutation(n).tolist()


def test_rare_classes_come_more_often(split: Split) -> None:
    stream = TrainStream(split, CONFIG.updated(train={"repeat_threshold": 1.0}))
    factors = repeat_factors(split, 1.0)
    assert factors.max() > 1 and stream.epoch_length == math.ceil(factors.sum()) > IMAGES
    epochs = [stream.order(epoch).tolist() for epoch in range(3)]
    assert all(
        len(epoch) == stream.epoch_length and set(epoch) == set(range(IMAGES)) for epoch in epochs
    )
    assert epochs[0] != epochs[1]
    ids = [stream[k][1].image_id for k in range(stream.epoch_length)]
    assert ids == [split.records[i].id for i in epochs[0]]


def test_collate_pads_to_a_common_multiple_of_32(split: Split) -> None:
    stream = TrainStream(split, CONFIG)
    items = [stream[k] for k in range(4)]
    batch = collate(items)
    assert batch.images.pixels.shape[2] % 32 == 0 == batch.images.pixels.shape[3] % 32
    assert batch.images.sizes == tuple(tuple(p.shape[1:]) for p, _, _ in items)
    for image, (pixels, _, _) in zip(batch.images.pixels, items, strict=True):
        height, width = pixels.shape[1:]
        assert torch.equal(image[:, :height, :width], pixels)
        assert not image[:, height:].any() and not image[:, :, width:].any()
    moved = batch.to("cpu")
    assert same(moved, batch) and moved.draws is batch.draws


def square(number: int, x: float, *, crowd: int = 0) -> dict[str, object]:
    """A 10 x 10 object at (x, 5) of class 1 + number."""
    corners = [x, 5.0, x + 10, 5.0, x + 10, 15.0, x, 15.0]
    return {
        "id": number,
        "image_id": 7,
        "category_id": 1 + number % 2,
        "bbox": [x, 5, 10, 10],
        "iscrowd": crowd,
        "segmentation": [corners],
    }


@pytest.fixture
def squares(tmp_path: Path) -> Split:
    """Two objects and a crowd on an image of 20 x 60."""
    (tmp_path / "annotations").mkdir()
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.png").touch()
    content = {
        "images": [{"id": 7, "file_name": "a.png", "height": 20, "width": 60}],
        "categories": [{"id": 1, "name": "even"}, {"id": 2, "name": "odd"}],
        "annotations": [square(1, 0.0), square(2, 20.0, crowd=1), square(4, 40.0)],
    }
    (tmp_path / "annotations" / "instances_train.json").write_text(json.dumps(content))
    return load_split(tmp_path, "train")


def test_crowds_are_left_out(squares: Split) -> None:
    targets = transform_targets(squares.records[0], (20, 60), [])
    assert targets.boxes.tolist() == [[0, 5, 10, 15], [40, 5, 50, 15]]
    assert targets.labels.tolist() == [1, 0] and targets.image_id == 7
    assert targets.masks.sum((1, 2)).tolist() == [100, 100]


def test_objects_follow_the_geometry_by_hand(squares: Split) -> None:
    steps: list[Step] = [Flip(-1), Crop(0, 0, 20, 30), Resize((40, 60))]
    targets = transform_targets(squares.records[0], (20, 60), steps)
    # after the flip at x 50..60 (cut off) and 10..20; then twice as large
    assert targets.boxes.tolist() == [[20, 10, 40, 30]] and targets.labels.tolist() == [0]
    assert targets.masks.shape == (1, 40, 60)
    expected = np.zeros((40, 60), dtype=bool)
    expected[10:30, 20:40] = True
    assert np.array_equal(targets.masks[0].numpy(), expected)


def test_what_is_thinner_than_a_pixel_is_dropped(squares: Split) -> None:
    record = squares.records[0]
    sliver = transform_targets(record, (20, 60), [Crop(0, 9, 20, 30), Resize((10, 15))])
    assert len(sliver) == 0 and sliver.masks.shape == (0, 10, 15)  # half a pixel of the first
    assert sliver.boxes.shape == (0, 4) and sliver.labels.shape == (0,)
    assert len(transform_targets(record, (20, 60), [Crop(0, 9, 20, 30)])) == 1


def test_images_of_another_size_than_annotated_are_refused(tmp_path: Path) -> None:
    make_shapes(tmp_path, train=1, val=0, size=(40, 56))
    split = load_split(tmp_path, "train")
    path = split.records[0].path
    with Image.open(path) as image:
        image.resize((28, 20)).save(path)
    with pytest.raises(DatasetError, match=rf"{path.name}: the image is 20x28 .* say 40x56"):
        TrainStream(split, CONFIG)[0]


def test_no_images_is_an_error(tmp_path: Path) -> None:
    make_shapes(tmp_path, train=0, val=1)
    with pytest.raises(DatasetError, match=r"instances_train\.json: no images to train on"):
        TrainStream(load_split(tmp_path, "train"), CONFIG)


def test_training_reads_images_as_prediction_does(split: Split, tmp_path: Path) -> None:
    record = split.records[0]
    height, width = record.height, record.width
    values = np.zeros((height, width, 2), np.uint16)
    values[..., 1] = np.linspace(0, 4095, height * width).reshape(height, width)
    tifffile = pytest.importorskip("tifffile", reason="needs the extra 'microscopy'")
    file = tmp_path / "two.tif"
    tifffile.imwrite(file, np.moveaxis(values, -1, 0), imagej=True, metadata={"axes": "CYX"})
    config = without_augmentation(CONFIG.updated(preprocess={"channel": 1, "short_side": height}))
    config = config.updated(augment={"long_side": width})
    pixels, _ = load_augmented(replace(record, path=file), config, np.random.default_rng(0))
    wanted = read_image(file, Reading(channel=1))
    assert wanted.max() == 255 and np.array_equal(pixels.permute(1, 2, 0).numpy(), wanted)
