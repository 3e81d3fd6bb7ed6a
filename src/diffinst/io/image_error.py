"""What is raised where an image cannot be read."""

from __future__ import annotations

from diffinst.io.one_line import one_line
from diffinst.io.out_of_memory import OutOfMemory


class ImageReadError(ValueError):
    """An image cannot be read; the message names it, what is wrong and what to do.

    Args:
        message: Made one printable line, whatever it quotes.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class ImageTooLarge(ImageReadError, OutOfMemory):
    """An image of permitted size does not fit in memory; the message names it."""
