"""Options of several commands: whole numbers, sizes, how images are read, where a model runs."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args

from cyclopts import App, ArgumentCollection, CoercionError, Parameter
from cyclopts.validators import Number
from typing_extensions import TypedDict

LARGEST = 1_000_000_000
MAX_SIDE = 65_535  # pixels
Count = Annotated[int, Parameter(validator=Number(gte=1, lte=LARGEST))]
Amount = Annotated[int, Parameter(validator=Number(gte=0, lte=LARGEST))]
Processes = Annotated[int, Parameter(validator=Number(gte=1, lte=4096))]
Seed = Annotated[int, Parameter(validator=Number(gte=0, lt=2**63))]
Device = Annotated[
    str | None, Parameter(help="cpu, cuda or cuda:1, ...; default: a GPU if there is one.")
]
Precise = Annotated[
    Literal["fp32", "bf16", "auto"],
    Parameter(
        help="fp32, bf16 (faster where the processor has it, nearly the same results), or auto: "
        "bf16 where this machine is faster with it."
    ),
]
Compiled = Annotated[
    bool,
    Parameter(
        name="compile",
        negative=(),
        help="Compile the network at the first image of each size, which takes up to a minute: for "
        "thousands of images of a few sizes.",
    ),
]


class Reads(TypedDict, total=False):
    """How images are read; not given: as the model has it."""

    page: int
    """The page, slice or time of a file to read, counted from 0; default: the first."""
    channel: int
    """The one channel to read, counted from 0; default: all, where these are grey or RGB."""
    project: Literal["max", "mean"]
    """All pages of a file as one image: the brightest value at each pixel (max), or the mean."""
    stretch: Literal["percentile", "full"]
    """Values of more than 8 bits: percentile stretches the range of each image, full keeps that of
    the type. Default of this and the three above: as the model has it."""


Read = Annotated[Reads, Parameter(name="*")]


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
