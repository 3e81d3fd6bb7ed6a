"""What every part of the configuration is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
Rgb = tuple[float, float, float]


class ConfigError(ValueError):
    """A configuration that cannot be: names the field, the value and what is allowed."""


class Part(BaseModel):
    """Frozen, and without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")
