"""The images a run learns from and is evaluated on, and the configuration they ask for."""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from diffinst.config import Config, PreprocessConfig
from diffinst.datasets.layouts import find_splits
from diffinst.datasets.load import check_trainable, load_split
from diffinst.datasets.segmentation import DatasetError
from diffinst.datasets.split import Split
from diffinst.inference.pipeline import input_size

SIDES = (20, 50, 80)  # percentiles
ENOUGH = 5000  # images, evenly taken

logger = logging.getLogger(__name__)


def splits(data: str | Path, *, single_class: bool) -> tuple[Split, Split | None]:
    """The training and the evaluation split of a folder.

    Args:
        data: The folder; see `datasets.layouts.find_splits`.
        single_class: Take all classes as one, named "object".

    Raises:
        DatasetError: No training data, nothing annotated, or val has classes that train lacks.
    """
    train = load_split(data, "train", single_class=single_class)
    check_trainable(train)
    if "val" not in find_splits(data):
        logger.warning("%s has no split 'val': training without evaluation", data)
        return train, None
    val = load_split(data, "val", single_class=single_class)
    unknown = [name for name in val.classes if name not in train.classes]
    if unknown:
        raise DatasetError(
            f"{val.annotation_file} has classes that {train.annotation_file} lacks: "
            f"{', '.join(unknown[:5])}; rename or remove them, or add them to both files"
        )
    missing = [name for name in train.classes if name not in val.classes]
    if missing:
        raise DatasetError(
            f"{val.annotation_file} does not list the classes {', '.join(missing[:5])} of "
            f"{train.annotation_file}; both have to list all classes, objects of each or not: add "
            "them to its 'categories'"
        )
    return train, val


def first_images(split: Split, count: int) -> Split:
    """The first images that have objects."""
    annotated = (r for r in split.records if any(not a.crowd for a in r.annotations))
    return replace(split, records=tuple(islice(annotated, count)))


def with_classes(config: Config, split: Split) -> Config:
    """The config with the data's classes."""
    return config.updated(
        model={"num_classes": len(split.classes), "class_names": list(split.classes)}
    )


def usual_sides(split: Split, preprocess: PreprocessConfig) -> tuple[float, ...] | None:
    """What `prompts.sides` is set to: the 20th, 50th and 80th percentile of the objects' sides.

    Args:
        split: Training images.
        preprocess: How large the network sees them.

    Returns:
        Square roots of box areas, pixels of the network input, rounded; None: no objects.
    """
    sides: list[float] = []
    for record in split.records[:: max(1, len(split.records) // ENOUGH)]:
        height, width = input_size((record.height, record.width), preprocess)
        ratio = (height / record.height * (width / record.width)) ** 0.5
        boxes = [a.box for a in record.annotations if not a.crowd]
        sides += [ratio * ((x1 - x0) * (y1 - y0)) ** 0.5 for x0, y0, x1, y1 in boxes]
    if not sides:
        return None
    return tuple(max(1.0, float(round(side))) for side in np.percentile(sides, SIDES))


def without_augmentation(config: Config) -> Config:
    """Training images exactly as they are at test time."""
    preprocess = config.preprocess
    return config.updated(
        augment={
            "flip": 0.0,
            "vertical_flip": 0.0,
            "transpose": 0.0,
            "colour": 0.0,
            "crop_probability": 0.0,
            "zoom": [1.0, 1.0] if preprocess.short_side else [preprocess.zoom] * 2,
            "short_sides": [preprocess.short_side] if preprocess.short_side else [],
            "long_side": preprocess.long_side,
        }
    )
