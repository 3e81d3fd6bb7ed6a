"""What can be chosen at test time, with the same weights."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from diffinst.config.part import Part, PositiveFloat, PositiveInt, Probability


class PreprocessConfig(Part):
    """How an image becomes the network input at test time."""

    short_side: PositiveInt | None = 800
    """Resize the short side to this; None: multiply by `zoom` instead."""
    zoom: PositiveFloat = 1.0
    long_side: PositiveInt = 1333
    """The long side never exceeds this."""


class SamplerConfig(Part):
    """Sampling at test time; every field is free, the weights stay the same."""

    kind: Literal["ddim", "search"] = "ddim"
    """`ddim`: found boxes are moved to the next time and looked at again (the paper); `search`:
    they stay as they are, and every step looks for more with fresh boxes."""
    steps: PositiveInt = 1
    most_steps: PositiveInt = 8
    """Where steps are `auto`: the number at which a run ends in any case."""
    new_score: Probability = 0.3
    """Where steps are `auto`: class probability from which on a box, where nothing was found
    before, is a reason to go on."""
    proposals: PositiveInt = 500
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
    mask_quality: Annotated[float, Field(ge=0, le=100)] = 0.0
    """How much the expected IoU of a mask, from its own probabilities, counts in a score: it is the
    geometric mean of class probability (weight 1) and expected IoU (this weight). 0: the class
    alone (the paper)."""
    mask_threshold: Probability = 0.5
