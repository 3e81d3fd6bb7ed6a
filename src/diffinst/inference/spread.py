"""One image from several noises: each object once, and how far the runs agree on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from diffinst.config import Options
from diffinst.diffusion.noise import Noise
from diffinst.diffusion.start import Start
from diffinst.inference.pipeline import Pipeline, Size
from diffinst.ops.boxes import class_nms
from diffinst.results.crops import rle_iou
from diffinst.results.instances import Instances
from diffinst.structures import Encoded

SAME = 0.5
"""Mask IoU from which on two runs have found the same object, as in AP50."""


def runs_of(
    pipeline: Pipeline,
    encoded: Encoded,
    noise: Noise,
    output: Size,
    *,
    at_once: int,
    start: Start | None = None,
) -> Iterator[list[Instances]]:
    """What each run finds on one image, `at_once` of them at a time; it is encoded once for all.

    Args:
        pipeline: Does one run, or several as a batch.
        encoded: The image.
        noise: Of all runs.
        output: (height, width) of the original image.
        at_once: Runs that go through the network together.
        start: Boxes that every run begins with.
    """
    for first in range(0, len(noise), at_once):
        part = noise[first : first + at_once]
        count = len(part)
        starts = [] if start is None else [start] * count
        yield pipeline.predict(encoded.expand(count), part, [output] * count, starts)


@dataclass(frozen=True)
class Group:
    """Detections of several runs that are one object.

    Attributes:
        members: Their positions, the best score first; at most one of each run.
        agreement: (len(members) - 1,) mask IoU of the first with each of the others.
    """

    members: tuple[int, ...]
    agreement: NDArray[np.float64]


def groups(found: Instances, runs: Sequence[int]) -> list[Group]:
    """Detections of several runs, object by object, the best score first.

    The best detection that belongs to no object yet begins one; from each other run it takes the
    free detection of its class whose mask overlaps its own most, by an IoU of `SAME` at least.

    Args:
        found: The detections of all runs.
        runs: Which run each of them is from.
    """
    masks, run = found.mask_crops.to_rle(), np.array(runs, dtype=np.int64)
    windows, labels = found.mask_crops.windows.numpy(), found.labels.numpy()
    low, high = windows[:, :2], windows[:, :2] + windows[:, 2:]
    free = np.ones(len(run), dtype=np.bool_)
    result = []
    for best in found.scores.argsort(descending=True, stable=True).tolist():
        if not free[best]:
            continue
        free[best] = False
        touching = (np.minimum(high, high[best]) > np.maximum(low, low[best])).all(1)
        near = np.flatnonzero(free & touching & (run != run[best]) & (labels == labels[best]))
        overlap = rle_iou([masks[best]], [masks[i] for i in near])[0]
        order = [k for k in np.argsort(-overlap, kind="stable") if overlap[k] >= SAME]
        _, first = np.unique(run[near[order]], return_index=True)  # each run's nearest
        chosen = [order[k] for k in first]
        free[near[chosen]] = False
        taken = sorted(zip(near[chosen], overlap[chosen], strict=True), key=lambda m: m[0])
        result.append(
            Group((best, *(int(i) for i, _ in taken)), np.array([float(o) for _, o in taken]))
        )
    return result


def joined(runs: Sequence[Instances], options: Options) -> Instances:
    """Each object of several runs once: its best detection, rated by all runs.

    Args:
        runs: What each found on the same image.
        options: Of a prediction: threshold, number kept, and the IoU that duplicates go by.
    """
    found = Instances.cat(runs)
    run = [k for k, one in enumerate(runs) for _ in range(len(one))]
    objects, scores, count = groups(found, run), found.scores.double().numpy(), len(runs)
    kept = found[torch.tensor([group.members[0] for group in objects], dtype=torch.int64)]
    rated = [
        (
            len(group.members) / count,
            float(scores[list(group.members)].std()),
            float(group.agreement.sum()) / max(1, len(group.agreement)),
        )
        for group in objects
    ]
    stability, spread, agreement = torch.tensor(rated, dtype=torch.float32).view(-1, 3).unbind(1)
    kept = replace(kept, stability=stability, score_spread=spread, mask_agreement=agreement)
    kept = kept[class_nms(kept.boxes, kept.scores, kept.labels, options.nms_iou)]
    return kept[kept.scores.argsort(descending=True, stable=True)][: options.max_detections]
