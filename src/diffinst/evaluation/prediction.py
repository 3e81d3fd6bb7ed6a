"""What a model finds on the images of a split, in the split's own categories."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from diffinst.config import Config, Options
from diffinst.datasets.split import ImageRecord, Split
from diffinst.evaluation.metrics import LVIS_MAX_DETECTIONS
from diffinst.inference.predictor import DiffusionInst
from diffinst.io.images import ImageReadError, ImageTooLarge
from diffinst.results.convert import CocoResult
from diffinst.results.instances import Instances

SamplerKind: TypeAlias = Literal["ddim", "search"]
USUAL_THRESHOLD = 0.3
"""Score from which on predictions count for a model that itself keeps all (threshold 0)."""


@dataclass(frozen=True)
class Request:
    """With the weights, all that a prediction depends on.

    Attributes:
        steps: Denoising steps.
        proposals: Boxes to start from.
        max_detections: Results kept per image.
        seed: Of the noise, the same for every image.
        category_ids: The split's category id of each of the model's labels.
        kind: How a step follows from the one before.
        until_settled: An image ends when a step finds nothing new; `steps` is the cap.
        noises: Runs of each image, see `OptionFields`.
    """

    steps: int
    proposals: int
    max_detections: int
    seed: int
    category_ids: tuple[int, ...]
    kind: SamplerKind = "ddim"
    until_settled: bool = False
    noises: int = 1


@dataclass(frozen=True)
class Prediction:
    """What was found on one image.

    Attributes:
        image_id: The image.
        seconds: Wall clock since the image before it; in a batch the first one bears it all.
        results: COCO results, masks as RLE.
        file_size: Of the image's file, in bytes; None: not known.
    """

    image_id: int
    seconds: float
    results: list[CocoResult]
    file_size: int | None = None


def request(
    config: Config,
    split: Split,
    *,
    steps: int | Literal["auto"] | None = None,
    proposals: int | None = None,
    max_detections: int | None = None,
    seed: int = 0,
    kind: SamplerKind | None = None,
    noises: int = 1,
    single_class: bool = False,
) -> Request:
    """Fill in what is left open, None, with the model's own; on federated data 300 detections.

    Args:
        config: The model's.
        split: What it is evaluated on.
        steps: As in `Request`.
        proposals: As in `Request`.
        max_detections: As in `Request`.
        seed: As in `Request`.
        kind: As in `Request`.
        noises: As in `Request`.
        single_class: The split's classes were taken as one; so are the model's.

    Raises:
        ConfigError: A value is out of range; names it.
        ValueError: The split has other classes than the model.
    """
    if max_detections is None and split.federated:
        max_detections = LVIS_MAX_DETECTIONS
    chosen = Options.of(
        config,
        steps=steps,
        proposals=proposals,
        max_detections=max_detections,
        seed=seed,
        kind=kind,
        noises=noises,
    )
    return Request(
        steps=chosen.steps,
        proposals=chosen.proposals,
        max_detections=chosen.max_detections,
        seed=chosen.seed,
        category_ids=_label_categories(config, split, single_class=single_class),
        kind=chosen.kind,
        until_settled=chosen.until_settled,
        noises=chosen.noises,
    )


def score_threshold(config: Config) -> float:
    """Score from which on predictions count where AP, which takes all, is not what is asked."""
    return config.postprocess.threshold or USUAL_THRESHOLD


def _label_categories(config: Config, split: Split, *, single_class: bool) -> tuple[int, ...]:
    model = config.model
    if single_class:
        return split.category_ids * model.num_classes
    if not model.class_names and model.num_classes != len(split.classes):
        raise ValueError(
            f"{split.annotation_file} has {len(split.classes)} classes, the model "
            f"{model.num_classes} without names; train on this data first"
        )
    names = model.class_names or split.classes
    by_name = dict(zip(split.classes, split.category_ids, strict=True))
    if set(names) != set(by_name) or len(names) != len(by_name):
        advice = "evaluate on data with the model's classes or train on this data first"
        if tuple(names) == ("object",):
            advice = (
                "this model takes all classes as one: evaluate with --single-class "
                "(single_class=True)"
            )
        raise ValueError(
            f"{split.annotation_file} has {len(by_name)} classes "
            f"({', '.join(split.classes[:5])}), the model {len(names)} ({', '.join(names[:5])}); "
            f"{advice}"
        )
    return tuple(by_name[name] for name in names)


def predictions(
    model: DiffusionInst, records: Iterable[ImageRecord], asked: Request
) -> Iterator[tuple[ImageRecord, Prediction | ImageReadError]]:
    """Predict images: the one place where an evaluation runs the model, in whatever process.

    Images are read ahead, and those of one padded size share a batch.

    Args:
        model: Loaded, where it is to run.
        records: The images.
        asked: How.

    Yields:
        Each image with what was found, or with the error if it cannot be read or is not of the
        size that the annotations say.

    Raises:
        ImageTooLarge: Memory is used up; names the image and what to lower.
    """
    waiting: deque[ImageRecord] = deque()

    def paths() -> Iterator[Path]:
        for record in records:
            waiting.append(record)
            yield record.path

    each = model.predict_each(
        paths(),
        steps=asked.steps,
        proposals=asked.proposals,
        threshold=0.0,
        max_detections=asked.max_detections,
        seed=asked.seed,
        kind=asked.kind,
        until_settled=asked.until_settled,
        noises=asked.noises,
    )
    begin = time.perf_counter()
    for path, found in each:
        seconds, record = time.perf_counter() - begin, waiting.popleft()
        yield record, _outcome(record, found, seconds, asked, path)
        begin = time.perf_counter()


def _outcome(
    record: ImageRecord,
    found: Instances | ImageReadError,
    seconds: float,
    asked: Request,
    path: Path,
) -> Prediction | ImageReadError:
    if isinstance(found, ImageTooLarge):
        raise found  # lower settings, or more memory: no score without it
    if isinstance(found, ImageReadError):
        return found
    expected = (record.height, record.width)
    if found.image_size != expected:  # its masks would match nothing
        return ImageReadError(
            f"{path}: the image is {found.image_size} (height, width), image {record.id} of the "
            f"annotations {expected}; put the right file there or correct the annotations"
        )
    results = found.to_coco(record.id, asked.category_ids, boxes="predicted")  # for box AP
    size = path.stat().st_size if path.is_file() else None  # it may be gone by now
    return Prediction(record.id, seconds, results, size)


def predict_and_keep(
    model: DiffusionInst,
    records: Iterable[ImageRecord],
    asked: Request,
    keep: Callable[[Prediction], None],
) -> Iterator[str | None]:
    """Predict images and hand each prediction to `keep`.

    Yields:
        After each image None, or why it could not be read.
    """
    for _, outcome in predictions(model, records, asked):
        if isinstance(outcome, ImageReadError):
            yield str(outcome)
        else:
            keep(outcome)
            yield None
