"""Options of several commands: fields of the configuration, the device."""

from __future__ import annotations

from typing import Annotated, cast

from cyclopts import Parameter

from diffinst.config import Config, ConfigParts

Overrides = Annotated[Config | None, Parameter(name="*", negative_none="no-")]


def given(fields: Config | None) -> ConfigParts:
    """The fields given as flags, and only those."""
    values = {} if fields is None else fields.model_dump(mode="json", exclude_unset=True)
    return cast("ConfigParts", values)


def usable_device(name: str | None) -> str:
    """The device asked for, or a CUDA GPU if there is one.

    Raises:
        ValueError: No such device, or one without float64, which box maths needs.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name is None:
        return "cuda" if gpus else "cpu"
    allowed = ["cpu", *["cuda"] * bool(gpus), *(f"cuda:{i}" for i in range(gpus))]
    if name not in allowed:
        raise ValueError(f"--device {name}: not usable here; there is {', '.join(allowed)}")
    return name


def height_and_width(text: str) -> tuple[int, int]:
    """HEIGHTxWIDTH as two numbers.

    Raises:
        ValueError: It is something else.

    Example:
        >>> height_and_width("800x1216")
        (800, 1216)
    """
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise ValueError(f"--size {text}: give HEIGHTxWIDTH in pixels, 800x1216 for example")
    return int(height), int(width)
