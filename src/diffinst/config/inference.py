"""What can be chosen at test time, with the same weights."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from diffinst.config.explain import explain
from diffinst.config.part import (
    ConfigError,
    Part,
    PositiveFloat,
    PositiveInt,
    Probability,
    Proposals,
    Side,
)

Position = Annotated[int, Field(ge=0)]


class Reading(Part):
    """How images are read: what counts of a file, and how deep values become 8 bits.

    Example:
        >>> Reading(channel=1, project="max").stretch
        'percentile'
    """

    stretch: Literal["percentile", "full"] = "percentile"
    """Values of more than 8 bits: `percentile` stretches each image's own range, `full` maps the
    whole range of the type, floats from 0 to 1."""
    page: Position | None = None
    """The page, slice or time of a file that is read, counted from 0; none: the first, with a note
    where there are more."""
    channel: Position | None = None
    """The one channel that is read, counted from 0; none: all, where these are grey or RGB."""
    project: Literal["max", "mean"] | None = None
    """All pages of a file as one image: the brightest value at each pixel, or their mean."""

    @model_validator(mode="after")
    def _one_page_or_all(self) -> Reading:
        if self.page is not None and self.project is not None:
            raise ValueError(
                f"page {self.page} chooses one page, project '{self.project}' takes all; give one "
                "of the two"
            )
        return self

    @classmethod
    def of(cls, **given: object) -> Reading:
        """What is given by name; None: not given.

        Raises:
            ConfigError: A value out of range, or no such field; names it.

        Example:
            >>> Reading.of(page=None, channel=2).model_fields_set
            {'channel'}
        """
        asked = {name: value for name, value in given.items() if value is not None}
        try:
            return Reading.model_validate(asked)
        except ValidationError as error:
            raise ConfigError(explain(error, Reading())) from error

    def over(self, own: Reading) -> Reading:
        """What is set here; the rest as `own` has it, a model's `preprocess` for example.

        Example:
            >>> Reading(channel=1).over(Reading(stretch="full")).stretch
            'full'
        """
        asked = self.model_dump(exclude_unset=True)
        kept = {name: getattr(own, name) for name in Reading.model_fields}
        if asked.get("page") is not None:
            kept["project"] = None
        if asked.get("project") is not None:
            kept["page"] = None
        return Reading(**{**kept, **asked})


class PreprocessConfig(Reading):
    """How an image becomes the network input at test time, and how it is read at any time."""

    short_side: Side | None = 800
    """Resize the short side to this; None: multiply by `zoom` instead."""
    zoom: PositiveFloat = 1.0
    long_side: Side = 1333
    """The long side never exceeds this."""
    mpp: PositiveFloat | None = None
    """Micrometres per pixel of the images that the model was trained on; None: unknown or mixed."""
    object_size: PositiveFloat | None = None
    """Typical diameter of the objects in these images, in pixels; None: unknown. Tiles of images of
    another scale are resized by these two."""


class SamplerConfig(Part):
    """Sampling at test time; every field is free, the weights stay the same."""

    kind: Literal["ddim", "search"] = "ddim"
    """`ddim`: found boxes are moved to the next time and looked at again (the paper); `search`:
    they stay as they are, and every step looks for more with fresh boxes."""
    steps: PositiveInt = 1
    most_steps: PositiveInt = 8
    """Where steps are `auto`: the number at which a run ends in any case."""
    new_score: Probability = 0.2
    """Where steps are `auto`: class probability from which on a box, where nothing of that
    probability was found before, is a reason to go on."""
    new_iou: Probability = 0.7
    """Where steps are `auto`: IoU with what was found before from which on a box is nothing new."""
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
    mask_quality: Annotated[float, Field(ge=0, le=100)] = 0.0
    """How much the expected IoU of a mask, from its own probabilities, counts in a score: it is the
    geometric mean of class probability (weight 1) and expected IoU (this weight). 0: the class
    alone (the paper)."""
    mask_threshold: Probability = 0.5


class PromptConfig(Part):
    """Objects that a person points at."""

    sides: Annotated[tuple[PositiveFloat, ...], Field(min_length=1, max_length=8)] | None = None
    """Usual box sides of objects, in pixels of the network input: a click tries each. None: `train`
    sets them to the 20th, 50th and 80th percentile of its data; without training they are 32, 96
    and 256."""
