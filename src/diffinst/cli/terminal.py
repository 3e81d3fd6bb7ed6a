"""What the commands say to the person at the terminal."""

from __future__ import annotations

from rich.console import Console

console = Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """Lines for a person, on stderr: brackets as they are, paths never wrapped."""
    console.print(text, markup=False, soft_wrap=True)
