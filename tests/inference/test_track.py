"""Are objects followed, ended and begun anew as a video goes on?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from diffinst.config import ConfigError, OptionFields, Reading
from diffinst.inference.predictor import DiffusionInst
from diffinst.inference.track import Frame, Tracker
from diffinst.io.images import ImageReadError
from diffinst.results.crops import CroppedMasks
from diffinst.results.instances import Instances

SIZE = (64, 96)
Places = list[tuple[float, float]]


def blobs(places: Places, radius: float = 7, seed: int = 0) -> NDArray[np.uint8]:
    """Bright discs with soft edges at (x, y), which nano-nuclei takes for nuclei."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    image = np.random.default_rng(seed).normal(20, 2, SIZE)
    for cx, cy in places:
        distance = np.hypot(x - cx, y - cy)
        image += 150 / (1 + np.exp((distance - radius) * 2))
    return np.clip(image, 0, 255).astype(np.uint8)


def followed(model: DiffusionInst, movie: list[NDArray[np.uint8]], **options: int) -> list[Frame]:
    return list(model.track(movie, **options))  # type: ignore[arg-type]


def ids(frame: Frame) -> list[int]:
    assert frame.result.ids is not None
    return sorted(frame.result.ids.tolist())


def test_ids_go_with_moving_blobs(nano: DiffusionInst) -> None:
    movie = [blobs([(20 + 3 * k, 20), (70 - 3 * k, 44)], seed=k) for k in range(4)]
    frames = followed(nano, movie, proposals=30)
    assert [f.index for f in frames] == [0, 1, 2, 3] and not any(f.note for f in frames)
    assert [ids(f) for f in frames] == [[1, 2]] * 4
    for k, frame in enumerate(frames):
        x = (frame.result.boxes[:, 0] + frame.result.boxes[:, 2]) / 2
        moving_right = frame.result.boxes[:, 1] < 30
        assert math.isclose(float(x[moving_right]), 20 + 3 * k, abs_tol=3)
        assert frame.result.image is not None
    first, last = frames[0].result, frames[-1].result
    assert first.ids is not None and last.ids is not None
    assert int(first.ids[first.boxes[:, 1] < 30]) == int(last.ids[last.boxes[:, 1] < 30])


def test_an_object_that_is_hidden_keeps_its_id_and_a_new_one_is_found_at_once(
    nano: DiffusionInst,
) -> None:
    both, one = [(20.0, 20.0), (70.0, 44.0)], [(20.0, 20.0)]
    movie = [blobs(p, seed=k) for k, p in enumerate([both, one, one, one, both, both])]
    frames = followed(nano, movie, proposals=60)
    assert [len(ids(f)) for f in frames] == [2, 1, 1, 1, 2, 2]
    assert ids(frames[-1]) == [1, 2]
    third = blobs([*both, (30.0, 50.0)])
    late = followed(nano, [movie[0], third, third], proposals=60)
    assert ids(late[-1]) == [1, 2, 3]


def test_another_scene_begins_new_ids_and_says_so(nano: DiffusionInst) -> None:
    before = [blobs([(20, 20), (30, 44)], seed=k) for k in range(2)]
    after = [blobs([(80, 14), (70, 52)], seed=k) for k in range(2)]
    frames = followed(nano, [*before, *after], proposals=60)
    assert [f.note for f in frames] == ["", "", "scene change: ids start anew", ""]
    assert [ids(f) for f in frames] == [[1, 2], [1, 2], [3, 4], [3, 4]]


@pytest.mark.parametrize(("moved", "new"), [(0, False), (2, False), (5, True), (30, True)])
def test_chance_overlaps_of_crowded_frames_are_no_sign_of_one_scene(moved: int, new: bool) -> None:
    """Squares of 10: moved by 2 they overlap by an IoU of 0.67, by 5 of 0.33."""
    tracker = Tracker(DiffusionInst.from_preset("tiny").config)
    dense = torch.zeros(16, 100, 140, dtype=torch.bool)
    for k in range(16):
        dense[k, k // 4 * 25 :, k % 4 * 25 :][:10, :10] = True
    before, after = (
        Instances(
            masks.tight_boxes(), torch.ones(16), torch.zeros(16).long(), masks, (100, 140), ("a",)
        )
        for masks in (CroppedMasks.from_dense(m) for m in (dense, dense.roll(moved, 2)))
    )
    tracker.identities.take(before, 0.5)
    assert tracker._is_new(after) is new


def test_a_black_frame_is_no_other_scene(nano: DiffusionInst) -> None:
    seen, black = blobs([(20, 20), (70, 44)]), np.zeros(SIZE, np.uint8)
    frames = followed(nano, [seen, black, black, seen], proposals=60)
    assert [ids(f) for f in frames] == [[1, 2], [], [], [1, 2]]
    assert not any(f.note for f in frames)


def test_frames_of_another_size_begin_new_ids_and_say_so(nano: DiffusionInst) -> None:
    small = blobs([(20, 20), (70, 44)])
    frames = followed(nano, [small, np.pad(small, ((0, 16), (0, 0)))], proposals=60)
    assert frames[1].note == (
        "64x96 (height x width) before, 80x96 (height x width) now: ids start anew"
    )
    assert ids(frames[1]) == [3, 4] and frames[1].result.image_size == (80, 96)


def test_the_same_video_gives_the_same_tracks(tiny: DiffusionInst) -> None:
    movie = [blobs([(20 + k, 20), (70, 44)], seed=k) for k in range(3)]
    options = {"proposals": 20, "threshold": 0, "seed": 3}
    one, other = (followed(tiny, movie, **options) for _ in range(2))
    assert [f.result for f in one] == [f.result for f in other]
    assert all(len(f.result) and not f.note for f in one)
    assert [f.result for f in followed(tiny, movie, **{**options, "seed": 4})] != [
        f.result for f in one
    ]


def test_encoded_frames_are_tracked_as_they_are(tiny: DiffusionInst) -> None:
    movie = [blobs([(20 + k, 20), (70, 44)], seed=k) for k in range(2)]
    encoded = [tiny.encode(image) for image in movie]
    options: OptionFields = {"proposals": 20, "threshold": 0}
    found = [frame.result for frame in tiny.track(encoded, **options)]
    assert found == [frame.result for frame in tiny.track(movie, **options)]
    with pytest.raises(ValueError, match="has been read already; give `reading` to encode"):
        next(tiny.track(encoded, reading=Reading(channel=0)))


def test_frames_are_asked_for_as_they_are_needed(tiny: DiffusionInst) -> None:
    asked = []

    def camera() -> Iterator[NDArray[np.uint8]]:
        for k in range(3):
            asked.append(k)
            yield np.full((*SIZE, 3), k, np.uint8)

    tracked = tiny.track(camera(), proposals=4)
    assert next(tracked).index == 0 and asked == [0]


def test_a_frame_that_cannot_be_read_counts_as_missed(tiny: DiffusionInst, tmp_path: Path) -> None:
    for name in ("2.png", "10.png"):
        Image.new("RGB", (40, 32)).save(tmp_path / name)
    (tmp_path / "9.png").write_bytes(b"no image")
    frames = list(tiny.track(tmp_path, proposals=4, threshold=1))
    assert [f.result.path and f.result.path.name for f in frames] == ["2.png", None, "10.png"]
    assert "9.png" in frames[1].note and "a frame without anything" in frames[1].note
    with pytest.raises(ImageReadError, match=r"9\.png"):
        list(tiny.track([tmp_path / "9.png"]))


def test_what_cannot_be_tracked_is_said(tiny: DiffusionInst, tmp_path: Path) -> None:
    with pytest.raises(ImageReadError, match="there are none"):
        list(tiny.track([]))
    with pytest.raises(ImageReadError, match="no frames in it"):
        tiny.track(tmp_path)
    for patience in (-1, 1.5, "3", None):
        with pytest.raises(ConfigError, match=f"patience is {patience!r}; give a number of frames"):
            tiny.track([], patience=patience)  # type: ignore[arg-type]
    one = np.zeros((40, 32), np.uint8)
    single = (one, np.stack([one] * 3, 2), torch.zeros(3, 40, 32), Image.fromarray(one), 5)
    for frames in (*single, tiny.encode(one)):
        with pytest.raises(ImageReadError, match=r"^frames: .* is not several images; give"):
            tiny.track(frames)  # type: ignore[arg-type]
    several = (np.stack([one] * 2), np.zeros((2, 40, 32, 3), np.uint8), torch.zeros(2, 3, 40, 32))
    for frames in several:
        assert len(list(tiny.track(frames, proposals=4))) == 2
    with pytest.raises(ConfigError, match="kind ddim"):
        tiny.track([], kind="ddim")
    with pytest.raises(ConfigError, match="threshold"):
        tiny.track([], threshold=2)


def test_boxes_larger_than_a_start_may_be_are_carried_smaller(nano: DiffusionInst) -> None:
    """128 pixels of the network input are 64 of the image at zoom 2."""
    tracker = Tracker(nano.config)
    image = nano.encode(np.zeros((100, 200), np.uint8))
    boxes = np.array([[0, 0, 100, 20], [50, 50, 50, 60]], np.float32)
    fitted = tracker._fitting(boxes, image)
    assert np.allclose(fitted[0], [50 - 31.968, 0, 50 + 31.968, 20])
    assert np.allclose(fitted[1], [49.5, 50, 50.5, 60])


def test_what_is_for_images_on_their_own_is_refused() -> None:
    model = DiffusionInst.from_preset("tiny")
    options: list[tuple[OptionFields, str]] = [
        ({"seconds": 0.5}, "seconds and noises are for images on their own"),
        ({"noises": 4}, "seconds and noises are for images on their own"),
        ({"ensemble": "last"}, "ensemble is last, but tracking goes by all steps"),
    ]
    for given, message in options:
        with pytest.raises(ConfigError, match=message):
            Tracker(model.config, **given)
