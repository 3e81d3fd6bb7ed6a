"""Options of several commands: whole numbers, sizes, the device."""

from __future__ import annotations

import re
from typing import Annotated, Any, get_args

from cyclopts import App, ArgumentCollection, CoercionError, Parameter
from cyclopts.validators import Number

LARGEST = 1_000_000_000
MAX_SIDE = 65_535  # pixels
Count = Annotated[int, Parameter(validator=Number(gte=1, lte=LARGEST))]
Amount = Annotated[int, Parameter(validator=Number(gte=0, lte=LARGEST))]
Processes = Annotated[int, Parameter(validator=Number(gte=1, lte=4096))]
Seed = Annotated[int, Parameter(validator=Number(gte=0, lt=2**63))]


def whole_numbers(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Refuse 1.5 where a whole number is due, before cyclopts rounds it.

    Raises:
        CoercionError: Names the flag and what was given.
    """
    for argument in arguments:
        if _is_whole(argument.hint):
            for token in argument.tokens:
                if re.fullmatch(r"[-+]?\d*\.\d*", token.value):
                    raise CoercionError(argument=argument, token=token, target_type=int)


def _is_whole(hint: Any) -> bool:  # noqa: ANN401 (annotations are of no common type)
    kinds = set(_kinds(hint))
    return int in kinds and not kinds & {float, str}


def _kinds(hint: Any) -> list[object]:  # noqa: ANN401
    return [kind for part in get_args(hint) for kind in _kinds(part)] or [hint]


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
    found = re.fullmatch("([0-9]{1,5})x([0-9]{1,5})", text)
    sides = (int(found[1]), int(found[2])) if found else (0, 0)
    if not all(1 <= side <= MAX_SIDE for side in sides):
        raise ValueError(
            f"--size {text}: give HEIGHTxWIDTH in pixels, 1 to {MAX_SIDE} each, such as 800x1216"
        )
    return sides
