"""What the commands say to the person at the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

EVERY = 10.0  # seconds
console = Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """Lines for a person, on stderr: brackets as they are, paths never wrapped."""
    console.print(text, markup=False, soft_wrap=True)


def progress_lines(
    label: str, amount: Callable[[int], str] = str
) -> Callable[[int, int | None], None]:
    """A function to call with (done, total) that says a line every `EVERY` seconds, and the last.

    Args:
        label: What is going on.
        amount: Makes a number readable.
    """
    said, last = time.monotonic(), (-1, -1)

    def advance(done: int, total: int | None) -> None:
        nonlocal said, last
        now = time.monotonic()
        if (done == total or now - said >= EVERY) and (done, total or -1) != last:
            said, last = now, (done, total or -1)
            console.print(
                f"{label} {amount(done)}" + (f"/{amount(total)}" if total else ""), soft_wrap=True
            )

    return advance


@contextmanager
def progress_bar(label: str, *, shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr; yields a function to call with (done, total).

    Where stderr is no terminal there is a line now and then instead, and one at the end.
    """
    if shown and not console.is_terminal:
        yield progress_lines(label)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
