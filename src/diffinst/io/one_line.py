"""Makes one line for a terminal of a text that quotes files of strangers."""

from __future__ import annotations

_LONGEST = 1200  # characters
_KEPT_END = 300  # what to do stands at the end


def one_line(text: str) -> str:
    r"""The text with escapes in place of what is not printable, its middle omitted if it is long.

    Example:
        >>> one_line("cat\n.png")
        'cat\\n.png'
    """
    if not text.isprintable():
        text = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST - _KEPT_END]} ... {text[-_KEPT_END:]}"
    return text


def first_line(error: BaseException) -> str:
    """The first line of what an error says; its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
