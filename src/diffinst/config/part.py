"""What every part of the configuration is made of."""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

# Numbers end where no computer could serve them: a slip of the keyboard is refused by name, and not
# by running out of memory.
PositiveInt = Annotated[int, Field(ge=1, le=1_000_000_000)]
Width = Annotated[int, Field(ge=1, le=8192)]
"""Of a layer: weights grow with its square."""
Layers = Annotated[int, Field(ge=1, le=64)]
Side = Annotated[int, Field(ge=1, le=65_535)]
"""Of an image, in pixels; what PNG and JPEG readers take."""
Proposals = Annotated[int, Field(ge=1, le=100_000)]
"""Of an image; each is compared with every object in training."""
PositiveFloat = Annotated[float, Field(gt=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
Rgb = tuple[float, float, float]


class ConfigError(ValueError):
    """A configuration that cannot be: names the field, the value and what is allowed."""


class Part(BaseModel):
    """Frozen, and without unknown fields; numbers are finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: object, info: ValidationInfo) -> object:
        """Pydantic would take true for 1."""
        given = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(one, bool) for one in given):
            field = cls.model_fields[info.field_name or ""]
            if _holds_numbers(field.annotation):
                raise PydanticCustomError("bool_for_number", "true and false are no numbers")
        return value


def _holds_numbers(annotation: object) -> bool:
    return annotation in (int, float) or any(map(_holds_numbers, get_args(annotation)))
