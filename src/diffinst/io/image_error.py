"""What is raised where an image cannot be read."""

from __future__ import annotations

from diffinst.io.out_of_memory import OutOfMemory


class ImageReadError(ValueError):
    """An image cannot be read; the message names it, what is wrong and what to do."""


class ImageTooLarge(ImageReadError, OutOfMemory):
    """An image of permitted size does not fit in memory; the message names it."""
