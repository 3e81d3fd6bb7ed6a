"""What does a model find on one image of a split, in the split's own categories?"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from diffinst.config import Config
from diffinst.datasets.split import ImageRecord, Split
from diffinst.evaluation.lvis import MAX_DETECTIONS
from diffinst.inference.predictor import DiffusionInst
from diffinst.io.images import ImageReadError
from diffinst.results.instances import CocoResult, Instances


@dataclass(frozen=True)
class Options:
    """What may be chosen for an evaluation; None: the model's own.

    Attributes:
        steps: Denoising steps.
        proposals: Boxes to start from.
        max_detections: Results kept per image; by default LVIS's 300 on federated data.
        seed: Of the noise, the same for every image.
        single_class: The split's classes were taken as one; so are the model's.
    """

    steps: int | None = None
    proposals: int | None = None
    max_detections: int | None = None
    seed: int = 0
    single_class: bool = False


@dataclass(frozen=True)
class Request:
    """The options with nothing left open: with the weights, all that a prediction depends on.

    Attributes:
        steps: As in `Options`.
        proposals: As in `Options`.
        max_detections: As in `Options`.
        seed: As in `Options`.
        category_ids: The split's category id of each of the model's labels.
    """

    steps: int
    proposals: int
    max_detections: int
    seed: int
    category_ids: tuple[int, ...]


@dataclass(frozen=True)
class Prediction:
    """What was found on one image.

    Attributes:
        image_id: The image.
        seconds: Wall clock of `predict`, reading included.
        results: COCO results, masks as RLE.
        file_size: Of the image's file, in bytes; None: not known.
    """

    image_id: int
    seconds: float
    results: list[CocoResult]
    file_size: int | None = None


def request(config: Config, split: Split, options: Options) -> Request:
    """Fill in what the options leave open.

    Raises:
        ConfigError: A value is out of range; names it.
        ValueError: The split has other classes than the model.
    """
    limit = options.max_detections
    if limit is None and split.federated:
        limit = MAX_DETECTIONS
    sampler = {"steps": options.steps, "proposals": options.proposals}
    chosen = config.updated(sampler=_given(sampler), postprocess=_given({"max_detections": limit}))
    return Request(
        steps=chosen.sampler.steps,
        proposals=chosen.sampler.proposals,
        max_detections=chosen.postprocess.max_detections,
        seed=options.seed,
        category_ids=label_categories(config, split, single_class=options.single_class),
    )


def _given(fields: Mapping[str, int | None]) -> dict[str, object]:
    return {key: value for key, value in fields.items() if value is not None}


def label_categories(config: Config, split: Split, *, single_class: bool) -> tuple[int, ...]:
    """The split's category id of each of the model's labels.

    Args:
        config: The model's.
        split: What it is evaluated on.
        single_class: Any label means the split's only class.

    Raises:
        ValueError: The split has other classes than the model.
    """
    model = config.model
    if single_class:
        return split.category_ids * model.num_classes
    if not model.class_names and model.num_classes != len(split.classes):
        raise ValueError(
            f"{split.annotation_file} has {len(split.classes)} classes, the model "
            f"{model.num_classes} without names; train on this data first"
        )
    return category_ids(model.class_names or split.classes, split)


def category_ids(names: Sequence[str], split: Split) -> tuple[int, ...]:
    """The split's category id of each class name.

    Raises:
        ValueError: The split has other classes.
    """
    by_name = dict(zip(split.classes, split.category_ids, strict=True))
    if set(names) != set(by_name) or len(names) != len(by_name):
        advice = "evaluate on data with the model's classes or train on this data first"
        if tuple(names) == ("object",):
            advice = (
                "this model takes all classes as one: evaluate with --single-class "
                "(load_split(..., single_class=True))"
            )
        raise ValueError(
            f"{split.annotation_file} has {len(by_name)} classes "
            f"({', '.join(split.classes[:5])}), the model {len(names)} ({', '.join(names[:5])}); "
            f"{advice}"
        )
    return tuple(by_name[name] for name in names)


def predict_record(model: DiffusionInst, record: ImageRecord, asked: Request) -> Prediction:
    """Predict one image.

    Raises:
        ImageReadError: It cannot be read, or is not of the size that the annotations say.
    """
    try:
        size = record.path.stat().st_size
    except OSError:
        size = None  # `predict` says why
    begin = time.perf_counter()
    found = model.predict(
        record.path,
        steps=asked.steps,
        proposals=asked.proposals,
        threshold=0.0,
        max_detections=asked.max_detections,
        seed=asked.seed,
    )
    seconds = time.perf_counter() - begin
    check_size(found, record)
    return Prediction(record.id, seconds, found.to_coco(record.id, asked.category_ids), size)


def check_size(found: Instances, record: ImageRecord) -> None:
    """Refuse masks of another size than the annotations', which would match nothing.

    Raises:
        ImageReadError: The sizes differ.
    """
    expected = (record.height, record.width)
    if found.image_size != expected:
        raise ImageReadError(
            f"{record.path}: the image is {found.image_size} (height, width), image {record.id} "
            f"of the annotations {expected}; put the right file there or correct the annotations"
        )
