"""What one prediction may vary, as one value: the same weights serve any of it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PrivateAttr, ValidationError, model_validator
from typing_extensions import TypedDict, Unpack

from diffinst.config.explain import explain
from diffinst.config.inference import PostprocessConfig, SamplerConfig
from diffinst.config.part import ConfigError, PositiveFloat
from diffinst.config.whole import Config

Seed = Annotated[int, Field(ge=0, lt=2**63)]
Noises = Annotated[int, Field(ge=1, le=1000)]
Time = Annotated[int, Field(ge=0, le=1_000_000_000)]


class OptionFields(TypedDict, total=False):
    """The keywords of `predict` and its kin; None, or not given: as the model has it."""

    steps: int | Literal["auto"] | None
    """Denoising steps; each costs one decoder pass. `auto`: until a step finds nothing new."""
    proposals: int | None
    """Boxes to start from; more for crowded images."""
    seconds: float | None
    """Time that an image may take: as many steps and proposals are run as fit. `steps` or
    `proposals` that are given stay."""
    threshold: float | None
    """Only instances with at least this score, 0 to 1."""
    max_detections: int | None
    """Largest number of instances per image, best first."""
    seed: int | None
    """Seed of the noise that a run starts from."""
    noises: int | None
    """Runs of each image, from the noise of seed, seed + 1, ...: each object comes once, with how
    many of them found it; more than 1 only in a prediction, not step by step."""
    kind: Literal["ddim", "search"] | None
    """How a step follows from the one before: `ddim` or `search`; see `SamplerConfig`."""
    most_steps: int | None
    """Where steps are `auto`: the number at which a run ends in any case."""
    new_score: float | None
    """Where steps are `auto`: class probability from which on a new box is a reason to go on."""
    new_iou: float | None
    """Where steps are `auto`: IoU with what was found before from which on a box is not new."""
    until_settled: bool | None
    """End when a step finds nothing new; `steps="auto"` asks for it."""
    times: tuple[int, ...] | None
    """Times to visit, falling, each below T; in place of `steps` even ones."""
    eta: float | None
    """Noise that is added on the way: 0 none, 1 as much as DDPM."""
    renewal_threshold: float | None
    """Proposals not above this score start again from noise."""
    ensemble: Literal["all", "official", "last"] | None
    """Steps that enter the result."""
    early_stop: float | None
    """An image stops when its confident boxes overlap those of the step before by this IoU."""
    nms_iou: float | None
    """The worse of two boxes of a class goes where they overlap by more than this IoU."""
    mask_quality: float | None
    """How much the expected IoU of a mask counts in its score; 0: not at all."""
    mask_threshold: float | None
    """Probability from which on a pixel belongs to a mask."""


class PromptFields(TypedDict, total=False):
    """The keywords of `prompt`; as in `OptionFields`."""

    seed: int | None
    """Seed of the boxes that fill up a pass of few prompts."""
    mask_quality: float | None
    """How much the expected IoU of a mask counts in its score."""
    mask_threshold: float | None
    """Probability from which on a pixel belongs to a mask."""


class Options(SamplerConfig, PostprocessConfig):
    """Everything that one prediction may vary, checked.

    A model's own values come from `config.sampler` and `config.postprocess`; `Options.of` puts
    what a caller asks for in their place.
    """

    seed: Seed = 0
    noises: Noises = 1
    """Runs of each image, from the noise of seed, seed + 1, ...; 1: a plain prediction."""
    times: tuple[Time, ...] | None = None
    """Times to visit, falling; None: `steps` even ones from T - 1, or from the start's time."""

    until_settled: bool = False
    """Images stop when a step has found nothing new; `steps` is the cap."""
    seconds: PositiveFloat | None = None
    """Time that an image may take; None: as long as it takes."""

    _free: tuple[str, ...] = PrivateAttr(default=())

    if not TYPE_CHECKING:  # checkers know the fields as keywords

        def __init__(self, **values: object) -> None:
            """See the fields.

            Raises:
                ConfigError: A value out of range; names it.
            """
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise ConfigError(explain(error, type(self)())) from error

    @model_validator(mode="before")
    @classmethod
    def _times_say_how_many_steps(cls, values: object) -> object:
        if isinstance(values, dict) and isinstance(values.get("times"), list | tuple):
            return {**values, "steps": max(1, len(values["times"]))}
        return values

    @classmethod
    def of(cls, config: Config, **given: Unpack[OptionFields]) -> Options:
        """A model's options with those given in place of its own.

        Args:
            config: The model's.
            **given: See `OptionFields`; None stands for the model's own value.

        Raises:
            ConfigError: A value out of range, or no such option; names it.

        Example:
            >>> Options.of(Config(), steps=4).steps
            4
        """
        own = config.sampler.model_dump() | config.postprocess.model_dump()
        asked = {name: value for name, value in given.items() if value is not None}
        free = _not_given(asked)
        if asked.get("steps") == "auto":
            most = asked.get("most_steps", config.sampler.most_steps)
            asked |= {"steps": most, "until_settled": True}
        options = cls(**(own | asked))
        options._free = free
        options._fit(config.model.diffusion.timesteps)
        return options

    @property
    def free(self) -> tuple[str, ...]:
        """What `seconds` chooses, of steps and proposals: what was not given."""
        return self._free

    def _fit(self, timesteps: int) -> None:
        """Refuse steps and times that the schedule does not have."""
        if self.steps > timesteps:
            raise ConfigError(
                f"steps is {self.steps}; allowed are 1 to {timesteps} (diffusion.timesteps)"
            )
        if self.seconds is not None and not self.free:
            raise ConfigError(
                f"seconds is {self.seconds:g}, but steps and proposals are given, too, which "
                "leaves nothing to choose; omit one of the three"
            )
        if self.seconds is not None and self.noises > 1:
            raise ConfigError(
                f"noises is {self.noises} and seconds {self.seconds:g}; a time limit is for one "
                "run: omit one of the two"
            )
        if self.ensemble != "all" and (self.kind == "search" or self.until_settled or self.free):
            what = "steps auto" if self.until_settled else "sampler.kind search"
            what = "seconds" if self.free else what
            raise ConfigError(
                f"ensemble is {self.ensemble}, but {what} goes by all that was found; use "
                "ensemble all, or sampler.kind ddim with a number of steps"
            )
        times = self.times
        if times is None:
            return
        if times and self.kind == "search":
            raise ConfigError(
                f"times is {', '.join(map(str, times))}, but sampler.kind search begins every step "
                "at the last time; give steps instead, or sampler.kind ddim"
            )
        falling = all(now > following for now, following in pairwise(times))
        if not times or not falling or times[0] >= timesteps:
            raise ConfigError(
                f"times is {', '.join(map(str, times)) or 'empty'}; give at least one time, each "
                f"lower than the one before, from {timesteps - 1} to 0"
            )


def _not_given(asked: Mapping[str, object]) -> tuple[str, ...]:
    """What a budget may choose: what was not given."""
    if "seconds" not in asked:
        return ()
    fixed = {"proposals": "proposals" in asked}
    fixed["steps"] = "times" in asked or asked.get("steps", "auto") != "auto"
    return tuple(name for name in ("steps", "proposals") if not fixed[name])
