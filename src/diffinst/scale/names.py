"""How the name of a file stands in plans and rows: as text, from which its bytes follow."""

from __future__ import annotations

import re

_ESCAPED = re.compile(r"\\x(5c|[89a-f][0-9a-f])")  # what `printable` writes
_UNPAIRED = re.compile("[\udc80-\udcff]")  # bytes that are no UTF-8, as Python keeps them


def printable(path: str) -> str:
    r"""A path as text that can be written as UTF-8; different paths stay different.

    Bytes that are no UTF-8 become escapes; a backslash that would look like one becomes one, too.

    Example:
        >>> print(printable("a\udcff.png"), printable(r"a\xff.png"), printable(r"a\b.png"))
        a\xff.png a\x5cxff.png a\b.png
    """
    if path.isascii() and "\\x" not in path:  # nearly all of many millions
        return path
    text = _ESCAPED.sub(lambda found: rf"\x5cx{found[1]}", path)
    return _UNPAIRED.sub(lambda found: rf"\x{ord(found[0]) - 0xDC00:02x}", text)


def as_listed(text: str) -> str:
    r"""The path that a text of `printable` stands for, as Python opens it.

    Example:
        >>> as_listed(printable("a\udcff.png")) == "a\udcff.png"
        True
    """

    def byte(found: re.Match[str]) -> str:
        value = int(found[1], 16)
        return "\\" if found[1] == "5c" else chr(0xDC00 + value)

    return _ESCAPED.sub(byte, text)
