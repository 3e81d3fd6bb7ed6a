"""How are many values named in one message?"""

from __future__ import annotations

from collections.abc import Iterable

_SHOWN = 5


def shown(values: Iterable[int | str]) -> str:
    """The first few, and how many there are more."""
    texts = [str(value) for value in values]
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more
