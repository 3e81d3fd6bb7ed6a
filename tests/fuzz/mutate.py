"""What malformed input is made of: a seeded change of bytes, of text, or of a tree of values."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, TypeAlias

import pytest
from _pytest.mark import ParameterSet

Tree: TypeAlias = Any  # dicts, lists and scalars, as JSON and YAML have them

ODD: tuple[Tree, ...] = (
    None, True, False, 0, -1, 1, 2, 0.5, 1e308, float("nan"), float("inf"), 2**31, 2**63, 10**30,
    10**400, "", " ", "0", "-1", "nan", "1e400", "true", "null", "é", "a\nb", "a\x1b[31mb",
    "\ud800", "\u202e", "[bold]b[/]", "../x", "/", "C:\\x", "x" * 5000, [], {}, [[]], [{}], [None],
    ["a"], [1, 2], {"a": 1},
    [[[[1]]]],
)  # fmt: skip
"""Values that some reader somewhere does not expect."""

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_WORD = re.compile(r"[A-Za-z_]{2,}")
_ODD_TEXTS = (
    "", "nan", "inf", "-1", "1e400", "99999999999999999999", "0", "1.5", "abc", "é", "²", "\t",
    "\0", "&", "<", '"', "{", "[", "*a", "!!python/object:os.system", "---", ",", ";", "\n",
    "\r\n", "\ufeff", "9" * 5000,
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One malformed input; its name is its seed."""

    kind: str
    number: int

    def __str__(self) -> str:
        return f"{self.kind}-{self.number}"

    def rng(self) -> random.Random:
        """The same draws in every process and on every machine."""
        return random.Random(str(self))


def cases(kind: str, quick: int, slow: int, known: Mapping[int, str] = {}) -> list[ParameterSet]:
    """Cases for `parametrize`: `quick` of them in every run, `slow` more in the slow one.

    Args:
        kind: The first half of their names.
        quick: Numbers from 0.
        slow: Numbers from `quick`.
        known: By number: what is wrong and not yet mended.
    """
    return [
        pytest.param(
            Case(kind, i),
            id=f"{kind}-{i}",
            marks=[pytest.mark.slow] * (i >= quick)
            + [pytest.mark.xfail(reason=known.get(i, ""), strict=True)] * (i in known),
        )
        for i in range(quick + slow)
    ]


def mutated_bytes(content: bytes, rng: random.Random) -> bytes:
    """Cut short, with bits turned, or with a piece lost, doubled, zeroed or replaced."""
    start = rng.randrange(len(content)) if content else 0
    if rng.random() < 0.5:  # headers decide most
        start = min(start, rng.randrange(64))
    end = min(len(content), start + rng.choice((1, 2, 4, 8, 64, 1024)))
    before, piece, after = content[:start], content[start:end], content[end:]
    match rng.randrange(9):
        case 0:
            return before
        case 1 | 2:
            turned = bytes(byte ^ (1 << rng.randrange(8)) for byte in piece[:4])
            return before + turned + piece[4:] + after
        case 3:
            return before + after
        case 4:
            return before + piece * rng.choice((2, 100)) + after
        case 5:
            return before + bytes(len(piece)) + after
        case 6:
            return before + b"\xff" * len(piece) + after
        case 7:
            return before + rng.randbytes(len(piece)) + after
        case _:
            return rng.choice((b"", b"\0", b"\n", b"\xef\xbb\xbf" + content, b"x" + content))


def mutated_text(text: str, rng: random.Random) -> str:
    """A number, a word, a sign or a line of it changed."""
    lines = text.splitlines(keepends=True)
    at = rng.randrange(len(lines)) if lines else 0
    pattern = (_NUMBER, _NUMBER, _WORD, re.compile(r"[^\w\s]"))[rng.randrange(4)]
    match rng.randrange(6):
        case 0 if lines:
            return "".join(lines[:at] + lines[at + 1 :])
        case 1 if lines:
            return "".join(lines[:at] + lines[at : at + 1] * 2 + lines[at + 1 :])
        case _:
            found = list(pattern.finditer(text))
            if not found:
                return text + rng.choice(_ODD_TEXTS)
            one = rng.choice(found)
            return text[: one.start()] + rng.choice(_ODD_TEXTS) + text[one.end() :]


def mutated_tree(tree: Tree, rng: random.Random) -> Tree:
    """A copy in which one value somewhere is odd, gone, doubled, or called otherwise."""
    root = [deepcopy(tree)]
    places = list(_places(root))
    holder, key = places[rng.randrange(len(places))]
    match rng.randrange(8):
        case 0 if holder is not root:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[rng.choice((f"{key}s", str(key).upper(), "", "x", "\ud800"))] = holder.pop(key)
        case 2 if isinstance(holder, list) and holder is not root:
            holder.insert(key, deepcopy(holder[key]))
        case 3:
            holder[key] = [holder[key]]
        case 4:
            holder[key] = deepcopy(rng.choice(places)[0]) if holder is not root else None
        case _:
            holder[key] = deepcopy(rng.choice(ODD))
    return root[0]


def _places(tree: Tree) -> Sequence[tuple[Any, Any]]:
    """Every container with each of its keys."""
    found: list[tuple[Any, Any]] = []
    todo = [tree]
    while todo:
        one = todo.pop()
        keys = list(one) if isinstance(one, dict) else range(len(one))
        for key in keys:
            found.append((one, key))
            if isinstance(one[key], dict | list) and one[key]:
                todo.append(one[key])
    return found
