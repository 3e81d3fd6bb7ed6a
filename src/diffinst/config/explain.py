"""Turns what pydantic says of wrong values into one line for a person."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from difflib import get_close_matches

from pydantic import ValidationError

from diffinst.config.part import Part

_SHOWN = 5  # wrong fields
_LONGEST = 100  # characters of a value


def explain(error: ValidationError, whole: Part) -> str:
    """One line that names each wrong field; `whole` knows all fields that there are."""
    lines = []
    for item in error.errors():
        field = ".".join(str(part) for part in item["loc"]) or "config"
        if item["type"] == "extra_forbidden":
            lines.append(f"unknown field {field[:_LONGEST]!r}{_meant(item['loc'], whole)}")
        elif item["type"] == "value_error":  # from a validator here: it names its fields and values
            lines.append(str(item["ctx"]["error"]))
        else:
            given = reprlib.repr(item.get("input"))
            given = given if len(given) <= _LONGEST else f"{given[:_LONGEST]}..."
            lines.append(f"{field}: {item['msg']} (got {given})")
    more = f"; and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    return "; ".join(lines[:_SHOWN]) + more


def did_you_mean(wrong: str, known: Sequence[str]) -> str:
    """What to add to "there is no such name"; nothing where none is near.

    Example:
        >>> did_you_mean("nanonuclei", ["nano-nuclei"])
        " (did you mean 'nano-nuclei'?)"
    """
    close = get_close_matches(wrong, known, n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""


def _meant(place: tuple[int | str, ...], whole: Part) -> str:
    """The field that was probably meant, here or in another part, or all that there are."""
    part: object = whole
    for name in place[:-1]:
        part = getattr(part, str(name), None)
    here = list(type(part).model_fields) if isinstance(part, Part) else []
    wrong = str(place[-1])
    path = "".join(f"{name}." for name in place[:-1])
    close = [name for name in _paths(whole) if name.split(".")[-1] == wrong]
    close = close or [path + name for name in get_close_matches(wrong, here, n=1)]
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; {path[:-1] or 'the config'} has {', '.join(here)}"


def _paths(part: Part, prefix: str = "") -> list[str]:
    """Dotted names of all fields below a part."""
    paths = []
    for name in type(part).model_fields:
        value = getattr(part, name)
        paths.append(prefix + name)
        if isinstance(value, Part):
            paths += _paths(value, f"{prefix}{name}.")
    return paths
