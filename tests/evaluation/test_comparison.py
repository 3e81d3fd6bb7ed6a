"""Colours and captions tell right from wrong, and the captions add up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from diffinst.datasets.records import ImageRecord
from diffinst.datasets.segmentation import RLE
from diffinst.datasets.split import Split
from diffinst.evaluation.comparison import FALSE, IGNORED, MISSED, RIGHT, side_by_side
from diffinst.io.images import ImageReadError
from diffinst.results.convert import CocoResult

AsFound = Callable[..., list[CocoResult]]
TILE = 480


def near_colour(tile: Image.Image, colour: tuple[int, int, int]) -> int:
    """Pixels of about this colour: outlines are drawn opaque."""
    pixels = np.asarray(tile).astype(int)
    return int((abs(pixels - np.array(colour)).max(-1) < 25).sum())


@pytest.fixture
def record(shapes: Split, tmp_path: Path) -> ImageRecord:
    """The first image with its objects, its pixels plain grey."""
    grey = tmp_path / "grey.png"
    first = shapes.records[0]
    Image.new("RGB", (first.width, first.height), (20, 20, 20)).save(grey)
    return replace(first, path=grey)


def test_colours_tell_right_from_wrong(shapes: Split, record: ImageRecord, truth: AsFound) -> None:
    (predicted, _), (annotated, _) = side_by_side(record, truth(record, shapes), shapes, TILE)
    assert predicted.width == annotated.width == TILE
    assert near_colour(predicted, RIGHT) > 100 and near_colour(annotated, RIGHT) > 100
    assert near_colour(predicted, FALSE) == near_colour(annotated, MISSED) == 0

    wrong = truth(record, shapes)
    for result in wrong:
        result["category_id"] = result["category_id"] % 3 + 1
    (predicted, _), (annotated, _) = side_by_side(record, wrong, shapes, TILE)
    assert near_colour(predicted, FALSE) > 100 and near_colour(annotated, MISSED) > 100
    assert near_colour(predicted, RIGHT) == near_colour(annotated, RIGHT) == 0

    crowds = replace(record, annotations=tuple(replace(a, crowd=True) for a in record.annotations))
    for tile, _ in side_by_side(crowds, truth(record, shapes), shapes, TILE):
        assert near_colour(tile, IGNORED) > 100 and near_colour(tile, RIGHT) == 0


def test_captions_say_what_is_counted_and_at_which_iou(
    shapes: Split, record: ImageRecord, truth: AsFound
) -> None:
    n = len(record.annotations)
    found = truth(record, shapes)
    (_, left), (_, right) = side_by_side(record, found, shapes, TILE)
    assert left == (
        f"grey.png\n{n} found: {n} right (blue)\n"
        "F1 at IoU 0.5: 1.00, mean over IoU 0.5 to 0.95: 1.00"
    )
    assert right == f"annotation\n{n} annotated: {n} found (blue)"

    # One found twice, one not at all: n right and 1 wrong would need n + 1 objects.
    (_, left), (_, right) = side_by_side(record, [*found[1:], found[-1]], shapes, TILE)
    f1 = f"{2 * (n - 1) / (2 * (n - 1) + 2):.2f}"
    assert f"{n} found: {n - 1} right (blue), 1 wrong (red)" in left
    assert f"F1 at IoU 0.5: {f1}, mean over IoU 0.5 to 0.95: {f1}" in left
    assert f"{n} annotated: {n - 1} found (blue), 1 missed (yellow)" in right


def test_f1_at_one_threshold_is_not_the_mean(
    shapes: Split, record: ImageRecord, truth: AsFound
) -> None:
    # One mask of 20 x 20 against 20 x 24: IoU 400 / 480 = 0.83, a hit at 7 of the 10 thresholds.
    def square(height: int) -> CocoResult:
        mask = np.zeros((record.height, record.width), np.uint8, order="F")
        mask[10 : 10 + height, 10:30] = 1
        encoded = coco_mask.encode(mask)
        size, counts = [record.height, record.width], encoded["counts"].decode()
        return {**truth(record, shapes)[0], "segmentation": {"size": size, "counts": counts}}

    one = replace(record.annotations[0], segmentation=cast("RLE", square(24)["segmentation"]))
    single = replace(record, annotations=(one,))
    (_, left), _ = side_by_side(single, [square(20)], shapes, TILE)
    assert "1 found: 1 right (blue)\nF1 at IoU 0.5: 1.00, mean over IoU 0.5 to 0.95: 0.70" in left


def test_nothing_found_is_said(shapes: Split, record: ImageRecord) -> None:
    n = len(record.annotations)
    (_, left), (_, right) = side_by_side(record, [], shapes, TILE)
    assert left.splitlines()[1] == "0 found" and right.endswith(
        f"{n} annotated: {n} missed (yellow)"
    )
    (_, left), (_, right) = side_by_side(replace(record, annotations=()), [], shapes, TILE)
    assert left.splitlines()[1] == "0 found" and right == "annotation\n0 annotated"


def test_crowds_add_up(shapes: Split, record: ImageRecord, truth: AsFound) -> None:
    first, *others = record.annotations
    crowded = replace(record, annotations=(replace(first, crowd=True), *others))
    n = len(others)
    (_, left), (_, right) = side_by_side(crowded, truth(record, shapes), shapes, TILE)
    assert f"{n + 1} found: {n} right (blue), 1 ignored (grey)" in left
    assert right.endswith(f"{n + 1} annotated: {n} found (blue), 1 crowd (grey)")


def test_an_image_that_is_gone_is_an_error(shapes: Split, record: ImageRecord) -> None:
    record.path.unlink()
    with pytest.raises(ImageReadError, match=r"grey\.png"):
        side_by_side(record, [], shapes, TILE)
