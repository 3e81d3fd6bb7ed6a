"""Do the data decide what they should of a run's configuration?"""

from __future__ import annotations

from pathlib import Path

from diffinst.config import Config, PreprocessConfig
from diffinst.datasets.records import Annotation, ImageRecord
from diffinst.datasets.split import Split
from diffinst.training.splits import usual_sides, without_augmentation


def test_without_augmentation_by_hand() -> None:
    chosen = Config.from_preset("tiny").updated(
        augment={"colour": 0.2}, preprocess={"short_side": 48}
    )
    augment = without_augmentation(chosen).augment
    assert (augment.flip, augment.colour, augment.crop_probability) == (0, 0, 0)
    assert (augment.short_sides, augment.zoom, augment.long_side) == ((48,), (1, 1), 160)
    zoomed = chosen.updated(preprocess={"short_side": None, "zoom": 2.0})
    augment = without_augmentation(zoomed).augment
    assert (augment.short_sides, augment.zoom) == ((), (2, 2))


def split(*records: ImageRecord) -> Split:
    return Split("train", Path("a.json"), ("a",), (1,), records, Path())


def record(height: int, width: int, *boxes: tuple[float, float, float, float]) -> ImageRecord:
    """An image; the last box is a crowd's."""
    annotations = tuple(
        Annotation(i, box, 0, [], i == len(boxes) - 1, 1.0) for i, box in enumerate(boxes)
    )
    return ImageRecord(1, Path("a.png"), height, width, annotations)


def test_usual_sides_by_hand() -> None:
    objects = record(100, 50, (0, 0, 10, 10), (0, 0, 40, 10), (0, 0, 90, 90))  # sides 10 and 20
    twice = PreprocessConfig(short_side=None, zoom=2.0)
    assert usual_sides(split(objects), twice) == (24, 30, 36)  # a fifth, half, ... of 20 to 40
    assert usual_sides(split(objects), PreprocessConfig(short_side=100)) == (24, 30, 36)
    assert usual_sides(split(record(10, 10)), twice) is None
