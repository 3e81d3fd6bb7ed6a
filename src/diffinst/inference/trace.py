"""What does the model believe on the way from noise to the result?"""

from __future__ import annotations

from dataclasses import dataclass

from diffinst.config import Config
from diffinst.inference.postprocess import draw, select
from diffinst.inference.sampler import Noise, Pool, Sampler, SampleStep, pool_step
from diffinst.models.network import DiffusionInstNetwork, Encoded
from diffinst.results.instances import Instances
from diffinst.structures import ImageBatch


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


def trace(
    network: DiffusionInstNetwork,
    batch: ImageBatch,
    noise: Noise,
    output: tuple[int, int],
    config: Config,
) -> list[TracePoint]:
    """Everything between noise and result of one image.

    Args:
        network: In eval mode.
        batch: The image, on the network's device, as the noise.
        noise: All random draws.
        output: (height, width) of the original image.
        config: Sampler, mask threshold.
    """
    encoded = network.encode(batch)
    points: list[TracePoint] = []
    for step in Sampler(network, config.sampler).run(encoded, noise):
        points += _points(network, step, encoded, output, config)
    return points


def _points(
    network: DiffusionInstNetwork,
    step: SampleStep,
    encoded: Encoded,
    output: tuple[int, int],
    config: Config,
) -> list[TracePoint]:
    everything = config.postprocess.model_copy(update={"threshold": 0.0, "max_detections": 10**6})
    points = []
    first = step.stages[0]
    scores, labels = first.logits.float().sigmoid().max(-1)
    entered = Pool(step.start, scores, labels, first.filters)  # each box once
    pools = [entered, *(pool_step(output, step.active) for output in step.stages)]
    for stage, pool in enumerate(pools, start=-1):
        detections = select(pool, 0, 1.0 if stage < 0 else config.sampler.nms_iou)
        instances = draw(detections, encoded.features, 0, output, network, everything)
        points.append(TracePoint(step.index, step.time, stage, instances))
    return points
