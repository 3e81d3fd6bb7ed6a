"""What the model believes on the way from noise to the result."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from diffinst.inference.found import candidates_of
from diffinst.inference.pipeline import Pipeline, Step
from diffinst.results.instances import Instances
from diffinst.structures import Candidates, Encoded


@dataclass(frozen=True)
class TracePoint:
    """What the model believes at one moment of the denoising.

    Attributes:
        step: Denoising step, 0 first.
        time: t of that step.
        stage: Decoder stage, 0 first; -1 for the boxes that entered the step.
        instances: All proposals with classes and masks; for stage -1 only boxes.
    """

    step: int
    time: int
    stage: int
    instances: Instances


def trace_points(
    pipeline: Pipeline, step: Step, encoded: Encoded, output: tuple[int, int]
) -> list[TracePoint]:
    """What the model believes in one step of one image: the boxes that entered, then each stage.

    Args:
        pipeline: That makes the run; threshold and number kept do not hold here.
        step: One of its steps.
        encoded: One image.
        output: (height, width) of the original image.
    """
    everything = {"threshold": 0.0, "max_detections": 10**6}
    options = pipeline.options.model_copy(update=everything)
    view, entering = (
        Pipeline(pipeline.network, pipeline.config, chosen)
        for chosen in (options, options.model_copy(update={"nms_iou": 1.0}))
    )
    points = [_point(entering, step, -1, _entered(step), encoded, output)]
    for stage, found in enumerate(step.stages):
        own = candidates_of(found, step.active)
        points.append(_point(view, step, stage, own, encoded, output))
    return points


def _point(
    pipeline: Pipeline,
    step: Step,
    stage: int,
    candidates: Candidates,
    encoded: Encoded,
    output: tuple[int, int],
) -> TracePoint:
    instances = pipeline.instances(candidates, encoded, 0, output)
    return TracePoint(step.index, step.time, stage, instances)


def _entered(step: Step) -> Candidates:
    """The boxes that entered, each once, scored by the first stage."""
    first = step.stages[0]
    scores, labels = first.logits.float().sigmoid().max(-1)
    rows = torch.arange(scores.shape[1], device=scores.device).expand_as(labels)
    return Candidates(step.boxes, scores, labels, first.filters, rows)
