"""What can be chosen at test time, with the same weights."""

from __future__ import annotations

from typing import Literal

from diffinst.config.part import (
    Part,
    PositiveFloat,
    PositiveInt,
    Probability,
    Proposals,
    Side,
)


class PreprocessConfig(Part):
    """How an image becomes the network input at test time."""

    short_side: Side | None = 800
    """Resize the short side to this; None: multiply by `zoom` instead."""
    zoom: PositiveFloat = 1.0
    long_side: Side = 1333
    """The long side never exceeds this."""


class SamplerConfig(Part):
    """DDIM sampling at test time; every field is free, the weights stay the same."""

    steps: PositiveInt = 1
    proposals: Proposals = 500
    eta: Probability = 1.0
    renewal_threshold: Probability = 0.5
    """Proposals whose best class probability is not above this start again from noise."""
    ensemble: Literal["all", "official", "last"] = "all"
    """Steps that enter the result; `official` drops the last one as the published code does."""
    early_stop: Probability | None = None
    """An image stops when its confident boxes overlap those of the step before by this IoU."""
    nms_iou: Probability = 0.5


class PostprocessConfig(Part):
    """From the sampler's pool of predictions to what the user gets."""

    threshold: Probability = 0.0
    max_detections: PositiveInt = 100
    mask_threshold: Probability = 0.5
