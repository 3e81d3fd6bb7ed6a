"""The comparison of an exported model with its original, on real images."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diffinst.config import Options
from diffinst.export.about import About, read_about
from diffinst.export.runtimes import load
from diffinst.export.unrolled import exported_inputs, fitted
from diffinst.inference.pipeline import Pipeline
from diffinst.inference.predictor import DiffusionInst
from diffinst.io.images import ImageSource
from diffinst.ops.boxes import iou
from diffinst.results.crops import CroppedMasks, rle_iou
from diffinst.results.instances import Instances
from diffinst.structures import Candidates, Encoded

SAME_IOU = 0.95
CONFIDENT = 0.5  # where the model's own threshold is zero
NEAR = 0.02  # a score may move by so much and the instance still counts as found


@dataclass(frozen=True)
class Parity:
    """The comparison over some images.

    Attributes:
        images: Compared.
        instances: Confident ones of the original.
        same: Of these, found again in the same class with a mask IoU of at least 0.95.
        extra: Confident ones of the exported model that the original does not have.
        seconds: From an array of the exported size to instances, original, median.
        seconds_exported: The same, exported, post-processing on our side included.
    """

    images: int
    instances: int
    same: int
    extra: int
    seconds: float
    seconds_exported: float

    def __str__(self) -> str:
        """One sentence for a terminal."""
        return (
            f"{self.same} of {self.instances} confident instances on {self.images} images are "
            f"the same (mask IoU >= {SAME_IOU}), {self.extra} are new; "
            f"{self.seconds_exported:.3f} s an image, {self.seconds:.3f} s with PyTorch"
        )


def compare(
    model: DiffusionInst, folder: str | Path, images: Sequence[ImageSource], seed: int = 0
) -> Parity:
    """Run both on the same images from the same noise.

    Args:
        model: The one that was exported.
        folder: From `export`.
        images: Any; they are resized to the exported size first.
        seed: Of the noise.

    Raises:
        ImageReadError: An image cannot be read; names it.
        ValueError: The folder holds no exported model.
    """
    about, run = read_about(folder), load(folder)
    original = same_settings(model, about)
    threshold = model.config.postprocess.threshold or CONFIDENT
    counts, seconds = np.zeros(3, dtype=int), []
    for source in images:
        image = fitted(source, about.size)
        array = np.ascontiguousarray(image.transpose(1, 2, 0))
        begin = time.perf_counter()
        expected = original.predict(array, seed=seed)
        between = time.perf_counter()
        outputs = run(**exported_inputs(image, original.config, seed))
        found = to_instances(outputs, about, original)
        seconds.append((between - begin, time.perf_counter() - between))
        counts += common(expected, found, threshold)
    medians = np.median(np.array(seconds), axis=0) if seconds else (0.0, 0.0)
    instances, same, extra = counts.tolist()
    return Parity(len(seconds), instances, same, extra, float(medians[0]), float(medians[1]))


def same_settings(model: DiffusionInst, about: About) -> DiffusionInst:
    """The original with the exported model's size, steps and proposals."""
    config = model.config.updated(
        preprocess={"short_side": None, "zoom": 1.0, "long_side": max(about.size)},
        sampler={"steps": about.steps, "proposals": about.proposals},
        postprocess={"threshold": 0.0},
    )
    return DiffusionInst(model.network, config).optimize("fp32")


def to_instances(outputs: Sequence[NDArray[Any]], about: About, model: DiffusionInst) -> Instances:
    """Outputs of an exported model as `Instances`.

    Args:
        outputs: In the order of `about.outputs`.
        about: What they are.
        model: Draws the masks where the exported model leaves that to its caller.
    """
    if about.postprocess:
        values = [torch.from_numpy(np.array(value)) for value in outputs]
        boxes, scores, labels, masks = (value[values[1] >= 0] for value in values)
        crops = CroppedMasks.from_dense(masks.bool())
        return Instances(boxes, scores, labels.long(), crops, about.size, about.class_names)
    return from_candidates(outputs, about, model, about.size)


def from_candidates(
    outputs: Sequence[NDArray[Any]], about: About, model: DiffusionInst, image: tuple[int, int]
) -> Instances:
    """Suppression and masks for the outputs of a model exported without them.

    Args:
        outputs: In the order of `about.outputs`.
        about: What they are.
        model: Its settings, and what draws the masks.
        image: (height, width) of the original image, in whose pixels the instances are.
    """
    values = (torch.from_numpy(np.array(value)) for value in outputs)
    boxes, scores, labels, filters, mask_features = values
    rows = torch.arange(len(boxes)) % about.proposals
    columns = (boxes, scores, labels.long(), filters, rows)
    candidates = Candidates(*(column[None] for column in columns))
    encoded = Encoded.for_masks(mask_features[None], (about.size,))
    pipeline = Pipeline(model.network, model.config, Options.of(model.config))
    return pipeline.instances(candidates, encoded, 0, image)


def common(expected: Instances, found: Instances, threshold: float) -> NDArray[np.int64]:
    """Confident instances of the first, those of them that the second has, those only it has."""
    same = _overlapping(expected.above(threshold), found.above(threshold - NEAR))
    back = _overlapping(found.above(threshold), expected.above(threshold - NEAR))
    return np.array([len(same), same.sum(), (~back).sum()])


def _overlapping(these: Instances, those: Instances) -> NDArray[np.bool_]:
    """(n,) whether each of the first is among the second: its class, nearly its mask."""
    overlap = rle_iou(these.mask_crops.to_rle(), those.mask_crops.to_rle())
    nothing = [(x.mask_crops.area() == 0).numpy() for x in (these, those)]
    empty = nothing[0][:, None] & nothing[1][None]  # two empty masks: their boxes decide
    overlap = np.where(empty, iou(these.boxes[:, None], those.boxes[None]).numpy(), overlap)
    alike = these.labels.numpy()[:, None] == those.labels.numpy()[None]
    result: NDArray[np.bool_] = ((overlap >= SAME_IOU) & alike).any(1)
    return result
