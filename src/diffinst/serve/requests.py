"""What a client may say, checked: options of a prediction, prompts, corrections."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from diffinst.config import OptionFields, SamplerConfig
from diffinst.serve.limits import Limits
from diffinst.serve.looks import Pointed
from diffinst.serve.refusal import Refused

Number = Annotated[float, Field(allow_inf_nan=False)]
Point = Annotated[list[Number], Field(min_length=2, max_length=2)]
Box = Annotated[list[Number], Field(min_length=4, max_length=4)]
PointOrBox = Annotated[list[Number], Field(min_length=2, max_length=4)]


class Asked(BaseModel):
    """A request on one image."""

    model_config = ConfigDict(extra="forbid")
    image: str = Field(description="Its id, as POST /images gave it")
    model: str | None = Field(None, description="One of GET /models; default: the first")


class PredictAsked(Asked):
    """All objects of an image."""

    steps: int | Literal["auto"] | None = Field(None, description="Denoising steps, or auto")
    proposals: int | None = Field(None, ge=1, description="Boxes of each step")
    seed: int | None = Field(None, ge=0, lt=2**53, description="Of the noise")
    threshold: float | None = Field(None, ge=0, le=1, description="Scores from which on")
    noises: int | None = Field(
        None, ge=1, description="Runs, each from other noise: objects get a stability, no steps"
    )
    seconds: float | None = Field(None, gt=0, description="Time budget in place of steps")

    def options(self, limits: Limits, own: SamplerConfig) -> OptionFields:
        """For the model, whose own settings are `own`.

        Raises:
            Refused: More than the server allows.
        """
        for name, given, most in (
            ("steps", self.steps, limits.steps),
            ("proposals", self.proposals, limits.proposals),
            ("noises", self.noises, limits.noises),
            ("seconds", self.seconds, limits.seconds),
        ):
            if given is not None and given != "auto" and float(given) > most:
                raise Refused(422, f"{name}: {given} is more than this server allows, {most:g}")
        asked = own.steps if self.steps is None else self.steps
        each = own.most_steps if asked == "auto" else asked
        runs = self.noises or 1
        if runs > 1 and runs * each > limits.steps:
            raise Refused(
                422, f"noises: {runs} runs of up to {each} steps are {runs * each} steps; this "
                f"server allows {limits.steps}"
            )  # fmt: skip
        return {
            "steps": self.steps,
            "proposals": self.proposals,
            "seed": self.seed,
            "noises": self.noises,
            "threshold": self.threshold,
            "seconds": self.seconds,
        }


class PromptAsked(Asked):
    """The objects that a person points at."""

    boxes: list[Box] = Field(default=[], description="x0, y0, x1, y1 around an object each")
    points: list[Point | list[Point]] = Field(
        default=[], description="A click x, y on each object, or lists of clicks on each"
    )
    exclude: list[PointOrBox] = Field(default=[], description="Clicks and boxes: not this")
    together: bool = Field(False, description="The one box and the clicks are of one object")
    replace: int | None = Field(None, description="The object that the answer replaces")

    @model_validator(mode="after")
    def _one_object(self) -> PromptAsked:
        if self.together and (len(self.boxes) != 1 or len(self.groups()) != 1):
            raise ValueError("together: give one box, and the clicks as one list of lists")
        return self

    def groups(self) -> list[list[list[float]]]:
        """The clicks of each object."""
        groups: list[list[list[float]]] = []
        for item in self.points:
            if item and isinstance(item[0], list):
                groups.append(item)
            else:
                groups.append([item])  # type: ignore[list-item]
        return groups

    def pointed(self, limits: Limits) -> Pointed:
        """For the engine.

        Raises:
            Refused: More than the server allows.
        """
        groups = self.groups()
        counts = {
            "boxes and points": len(self.boxes) + len(groups),
            "exclude": len(self.exclude),
            "clicks on one object": max(map(len, groups), default=0),
        }
        for name, count in counts.items():
            if count > limits.prompts:
                raise Refused(
                    422, f"{name}: {count} in one request; allowed are {limits.prompts}: send the "
                    "rest in a further one"
                )  # fmt: skip
        return Pointed(self.boxes, groups, self.exclude, self.together, self.replace)


class EditAsked(BaseModel):
    """A correction by a person."""

    model_config = ConfigDict(extra="forbid")
    action: Literal["delete", "label", "keep", "undo", "redo", "accept"]
    objects: list[int] = Field(default=[], max_length=100_000)
    label: int | None = Field(None, ge=0, description="Of `label`: position in the classes")
    threshold: float = Field(
        0.0, ge=0, le=1, description="Of `accept`: score from which on found objects are shown"
    )
    revision: int | None = Field(None, description="Of the work that is corrected; none: any")


class TrainAsked(BaseModel):
    """A training on the accepted images."""

    model_config = ConfigDict(extra="forbid")
    model: str | None = Field(None, description="To start from, one of GET /models")
    iterations: int = Field(300, ge=1, description="More for more images; each takes a batch")
